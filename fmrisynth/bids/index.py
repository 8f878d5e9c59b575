"""Which BOLD images a dataset holds, by pybids, with its database kept in step with the disk.

pybids indexes names only here (``index_metadata=False``): with metadata it
needs minutes and gigabytes for the 14,000 runs of a large study. Only BOLD
images are indexed; what belongs to them is found by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from fmrisynth.errors import OutputError

__all__ = ["bold_images", "database_folder"]

logger = logging.getLogger(__name__)

# Matched by pybids against the path from the root, which begins with a slash.
_IGNORED = (
    r"^/(?!sub-)[^/]+",  # sourcedata, derivatives, code and whatever else lies beside sub-*
    r"/\.",
    r"^/sub-[^/]+/(?!ses-|func(/|$))",
    r"^/sub-[^/]+/ses-[^/]+/(?!func(/|$))",
    r"/func/(?!.*_bold\.nii(\.gz)?$)",
)


def bold_images(root: Path, database_dir: Path | None = None) -> list[Path]:
    """List the BOLD images (NIfTI) below the func folders of a dataset, sorted.

    Parameters
    ----------
    root : Path
        Root of one dataset; nested derivatives and source data are not entered.
    database_dir : Path, optional
        Folder for pybids databases. One that was made from the same root is
        used when no file was added or removed since, else it is made anew.

    Raises
    ------
    OutputError
        When the database cannot be written.
    """
    root = root.resolve()
    if database_dir is None:
        return _index(root, None)
    folder = database_folder(root, database_dir)
    state = _fingerprint(root)
    stamp = folder / "fingerprint.txt"
    if _read_stamp(stamp) == state:
        return _index(root, folder)
    try:
        database_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(database_dir / f"{folder.name}.lock"):
            if _read_stamp(stamp) != state:  # another process may have made it meanwhile
                logger.info("indexing %s into %s", root, folder)
                fresh = folder.with_name(f"{folder.name}.new")
                shutil.rmtree(fresh, ignore_errors=True)
                _index(root, fresh)
                (fresh / stamp.name).write_text(state, encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)
                fresh.rename(folder)
    except OSError as error:
        raise OutputError(
            f"cannot write the database of {root} to {database_dir}: {error.strerror or error}. "
            "Give a writable --bids-database-dir, or none."
        ) from error
    return _index(root, folder)


def database_folder(root: Path, database_dir: Path) -> Path:
    """Where the database of the dataset at `root` lies."""
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    return database_dir / f"{root.resolve().name or 'root'}-{digest}"


def _index(root: Path, database: Path | None) -> list[Path]:
    # Imported here: pybids takes half a second, and reading back outputs needs none of it.
    from bids import BIDSLayout, BIDSLayoutIndexer

    layout = BIDSLayout(
        root,
        validate=False,
        config=["bids", "derivatives"],
        database_path=database,
        indexer=BIDSLayoutIndexer(
            validate=False,
            index_metadata=False,
            ignore=[re.compile(pattern) for pattern in _IGNORED],
        ),
    )
    return sorted(Path(path) for path in layout.get(return_type="filename"))


def _read_stamp(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8")
    return None


def _fingerprint(root: Path) -> str:
    """Digest the func folders and their modification times: it changes with every new name."""
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
