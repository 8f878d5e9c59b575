"""List the BOLD images of a dataset with pybids, and keep the list in step with the disk.

pybids indexes names only here (``index_metadata=False``): with metadata it
needs minutes and gigabytes for the 14,000 runs of a large study. Only BOLD
images are indexed; masks, events and sidecars are found by name. Reading the
list takes a fraction of the time that pybids takes to read its own database.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fmrisynth.runtime.files import make_folder, write_json, writing
from fmrisynth.runtime.locks import locked

__all__ = ["bold_images", "database_folder"]

log = logging.getLogger(__name__)

# Matched by pybids against the path from the root, which begins with a slash.
_IGNORED = (
    r"^/(?!sub-)[^/]+",  # sourcedata, derivatives, code and other folders beside sub-*
    r"/\.",
    r"^/sub-[^/]+/(?!ses-|func(/|$))",
    r"^/sub-[^/]+/ses-[^/]+/(?!func(/|$))",
    r"/func/(?!.*_(bold|bold_space-[^_]+_preproc)\.nii(\.gz)?$)",
)


def bold_images(root: Path, database_dir: Path | None = None) -> list[Path]:
    """List the BOLD images (NIfTI) below the func folders of a dataset, sorted.

    Parameters
    ----------
    root : Path
        Root of one dataset; nested derivatives and source data are not entered.
    database_dir : Path, optional
        Folder for lists of images. A list of the same root is used when no file
        was added or removed since, else it is written anew.

    Raises
    ------
    OutputError
        When the list cannot be written.
    """
    root = root.resolve()
    if database_dir is None:
        return _index(root)
    listing = database_folder(root, database_dir) / "images.json"
    state = _fingerprint(root)
    if (images := _listed(listing, root, state)) is not None:
        return images
    make_folder(listing.parent)
    with writing(listing), locked(listing.with_suffix(".lock")):
        # another process may have written it meanwhile
        if (images := _listed(listing, root, state)) is not None:
            return images
        log.info("indexing %s into %s", root, listing)
        images = _index(root)
        names = [str(image.relative_to(root)) for image in images]
        write_json(listing, {"fingerprint": state, "images": names})
    return images


def database_folder(root: Path, database_dir: Path) -> Path:
    """Return the folder in `database_dir` that belongs to the dataset at `root`."""
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    return database_dir / f"{root.resolve().name or 'root'}-{digest}"


def _index(root: Path) -> list[Path]:
    # Imported here: pybids takes half a second, and reading back outputs needs none of it.
    from bids import BIDSLayout, BIDSLayoutIndexer

    layout = BIDSLayout(
        root,
        validate=False,
        config=["bids", "derivatives"],
        indexer=BIDSLayoutIndexer(
            validate=False,
            index_metadata=False,
            ignore=[re.compile(pattern) for pattern in _IGNORED],
        ),
    )
    return sorted(Path(path) for path in layout.get(return_type="filename"))


def _listed(listing: Path, root: Path, state: str) -> list[Path] | None:
    """Read a list of images; None unless it is of this state of the dataset."""
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
        if content["fingerprint"] == state:
            return [root / name for name in content["images"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there yet, or damaged
    return None


def _fingerprint(root: Path) -> str:
    """Digest the func folders and their modification times, which change with every new name."""
    digest = hashlib.sha256()
    for folder in sorted(_func_folders(root)):
        digest.update(f"{folder.relative_to(root)}\t{folder.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _func_folders(root: Path) -> Iterator[Path]:
    for participant in _subfolders(root, "sub-"):
        for parent in (participant, *_subfolders(participant, "ses-")):
            yield from _subfolders(parent, "func")


def _subfolders(folder: Path, prefix: str) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [
                folder / entry.name
                for entry in entries
                if entry.name.startswith(prefix) and entry.is_dir()
            ]
    except OSError:
        return []
