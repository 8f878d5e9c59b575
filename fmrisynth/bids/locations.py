"""Refuse output directories and work directories that could touch the input."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from fmrisynth.errors import OutputError, UsageError

__all__ = ["check_output_dir", "check_work_dir", "is_own_output"]


def is_own_output(folder: Path) -> bool:
    """Say whether `folder` is a dataset that fmrisynth wrote."""
    try:
        description = json.loads((folder / "dataset_description.json").read_text("utf-8"))
        return any(entry.get("Name") == "fmrisynth" for entry in description["GeneratedBy"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def check_output_dir(bids_dir: Path, output_dir: Path, derivatives: Iterable[Path] = ()) -> Path:
    """Refuse an output directory that would change or contain the input.

    Any folder apart from the input is allowed, and ``BIDS_DIR/derivatives/NAME``.

    Parameters
    ----------
    bids_dir, output_dir : Path
        Root of the input dataset, and of the output dataset.
    derivatives : iterable of Path
        Derivative datasets that are read.

    Returns
    -------
    Path
        The resolved output directory.

    Raises
    ------
    OutputError
        When the output directory is, holds or lies inside an input, is no
        directory, or already holds a dataset that fmrisynth did not write.
    """
    out, source = output_dir.resolve(), bids_dir.resolve()
    inside_derivatives = out.parent == source / "derivatives"
    advice = f"Choose a folder outside of it, or {source / 'derivatives' / 'fmrisynth'}."
    if out == source or source.is_relative_to(out):
        relation = "is the input directory" if out == source else "holds the input directory"
        raise OutputError(f"the output directory {out} {relation} {source}. {advice}")
    if out.is_relative_to(source) and not inside_derivatives:
        raise OutputError(f"the output directory {out} lies inside the input {source}. {advice}")
    for root in (folder.resolve() for folder in derivatives):
        if out == root or out.is_relative_to(root) or root.is_relative_to(out):
            raise OutputError(
                f"the output directory {out} overlaps with the derivatives {root}, which are "
                "input. Choose a folder of its own."
            )
    if out.exists() and not out.is_dir():
        raise OutputError(f"the output directory {out} is a file. Choose another name.")
    if (out / "dataset_description.json").exists() and not is_own_output(out):
        raise OutputError(
            f"{out} already holds a dataset that fmrisynth did not write (see its "
            "dataset_description.json). Choose an empty folder."
        )
    return out


def check_work_dir(bids_dir: Path, work_dir: Path) -> Path:
    """Refuse a work directory that is the input or lies inside it.

    Returns
    -------
    Path
        The resolved work directory.

    Raises
    ------
    UsageError
        When the work directory would write into `bids_dir`.
    """
    work, source = work_dir.resolve(), bids_dir.resolve()
    if work.is_relative_to(source):
        raise UsageError(
            f"the work directory {work} lies inside the input {source}, which is never written "
            "to. Choose a scratch folder elsewhere."
        )
    return work
