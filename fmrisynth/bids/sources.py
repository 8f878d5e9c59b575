"""Find the datasets of a call: the BIDS directory and its derivatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fmrisynth.bids.locations import is_own_output
from fmrisynth.bids.sidecars import read_json
from fmrisynth.errors import DataError, NoInputError, NotBIDSError

__all__ = ["derivative_roots", "require_dataset"]

log = logging.getLogger(__name__)


def require_dataset(folder: Path, role: str = "the input") -> Path:
    """Resolve the root of a dataset, and check that it is a BIDS dataset.

    Raises
    ------
    NoInputError
        When there is no such directory, or it cannot be entered.
    NotBIDSError
        When its dataset_description.json is missing or broken.
    """
    root = folder.resolve()
    if not root.is_dir():
        found = "is a file, not a directory" if root.is_file() else "does not exist"
        raise NoInputError(f"{role} {folder} {found} (resolved: {root})")
    try:
        present = (root / "dataset_description.json").is_file()
        any(root.iterdir())
    except PermissionError as error:
        raise NoInputError(f"{role} {root} cannot be read: permission denied") from error
    if not present:
        raise NotBIDSError(
            f"{role} {root} has no dataset_description.json, so it is not the root of a BIDS "
            f"dataset.{_nearby_hint(root)}"
        )
    try:
        description = read_json(root / "dataset_description.json")
    except DataError as error:
        raise NotBIDSError(str(error)) from error
    if not isinstance(description.get("Name"), str) or "BIDSVersion" not in description:
        raise NotBIDSError(
            f"{root / 'dataset_description.json'} has no Name or no BIDSVersion, which BIDS asks "
            "for"
        )
    return root


def _nearby_hint(root: Path) -> str:
    """Point to a dataset one level up or down, since these are the usual mistakes."""
    for candidate in (root.parent, *sorted(root.glob("*/"))[:100]):
        if (candidate / "dataset_description.json").is_file():
            return f" Did you mean {candidate}?"
    return (
        ' Give the folder that holds the sub-* folders, and add a file {"Name": …, '
        '"BIDSVersion": "1.10.0"} there if it is missing.'
    )


def derivative_roots(
    bids_dir: Path, given: Mapping[str, str | Path] | Sequence[str | Path]
) -> dict[str, Path]:
    """Name the derivative datasets: the given ones, else those under BIDS_DIR/derivatives.

    Outputs of fmrisynth itself are passed over. A folder that holds datasets in
    turn (``derivatives/23.1/fmriprep``) is entered.

    Raises
    ------
    NoInputError, NotBIDSError
        When a given folder is no dataset.
    """
    if given:
        pairs = (
            given.items()
            if isinstance(given, Mapping)
            else ((Path(path).resolve().name, path) for path in given)
        )
        roots: dict[str, Path] = {}
        for name, path in pairs:
            root = require_dataset(Path(path), "the derivatives directory")
            unique = name if name not in roots else f"{name}-{len(roots) + 1}"
            roots[unique] = root
        return roots
    found = list(_lying_under(bids_dir / "derivatives"))
    for _name, root in found:
        if not (root / "dataset_description.json").is_file():
            log.warning("%s has no dataset_description.json and is read all the same", root)
    # of two datasets with one run, that with a description is taken
    found.sort(key=lambda item: not (item[1] / "dataset_description.json").is_file())
    return dict(found)


def _lying_under(folder: Path) -> Iterator[tuple[str, Path]]:
    for root in [folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))]:
        hidden = any(part.startswith(".") for part in root.relative_to(folder).parts)
        if hidden or root.name.startswith(("sub-", "ses-")) or not any(root.glob("sub-*/")):
            continue
        if is_own_output(root) or is_own_output(root.parent):
            continue
        if not (root / "dataset_description.json").is_file():
            yield root.name, root.resolve()
            continue
        try:
            yield root.name, require_dataset(root, "the derivatives directory")
        except (NotBIDSError, NoInputError) as error:
            log.warning("passing over %s: %s", root, error)
