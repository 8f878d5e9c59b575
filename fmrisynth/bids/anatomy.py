"""Copy the real T1w images that fMRIPrep needs beside synthetic functional ones."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.headers import check_present
from fmrisynth.bids.names import BidsName, compose_name, parse_name
from fmrisynth.errors import DataError
from fmrisynth.runtime.files import atomic_path, make_folder, write_json

__all__ = ["copy_anatomy"]

_DESCRIPTION = (
    "Measured, not synthetic: copied from the source dataset, in the space of the synthetic "
    "functional images."
)
_EXTENSIONS = (".nii.gz", ".nii")


def copy_anatomy(out: Path, runs: Sequence[Run]) -> tuple[str, ...]:
    """Copy a T1w image for each participant (and session) of the runs.

    The T1w image comes from the dataset of the functional image and lies in its
    space: the preprocessed one beside preprocessed runs, the raw one beside raw
    runs.

    Parameters
    ----------
    out : Path
        Root of the output dataset, of the raw layout.
    runs : sequence of Run
        The real runs that the synthetic ones repeat.

    Returns
    -------
    tuple of str
        Participants without a readable T1w image.

    Raises
    ------
    OutputError, InputOutputError
        When writing fails.
    """
    missing, done = [], set()
    for run in runs:
        place = (run.participant, run.session)
        if place in done:
            continue
        done.add(place)
        source = _find(run)
        if source is None:
            missing.append(run.participant)
            continue
        entities = {key: run.entities[key] for key in ("sub", "ses") if key in run.entities}
        parts = [f"{key}-{label}" for key, label in entities.items()]
        folder = make_folder(out.joinpath(*parts, "anat"))
        _copy(source, folder / compose_name(entities, "T1w", ".nii.gz"))
        write_json(folder / compose_name(entities, "T1w", ".json"), {"Description": _DESCRIPTION})
    return tuple(dict.fromkeys(missing))


def _find(run: Run) -> Path | None:
    """Find the T1w image of a run's session, else of its participant."""
    session = run.bold.parents[1]
    folders = [session, session.parent] if run.session else [session]
    for folder in folders:
        for path in sorted(
            [*folder.glob("anat/*_T1w.nii*"), *folder.glob("ses-*/anat/*_T1w.nii*")]
        ):
            try:
                name = parse_name(path.name)
                check_present(path)
            except (ValueError, DataError):
                continue
            if name.extension in _EXTENSIONS and _fits(name, run):
                return path
    return None


def _fits(name: BidsName, run: Run) -> bool:
    """Say whether an image is of the run's participant and lies in the run's space."""
    entities: Mapping[str, str] = name.entities
    if entities.get("sub") != run.participant or entities.get("space") != run.space:
        return False
    if entities.get("cohort") != run.cohort:
        return False
    return entities.get("desc") == ("preproc" if run.space else None)


def _copy(source: Path, target: Path) -> None:
    """Copy an image, compressed; an existing copy is kept."""
    if target.exists():
        return
    with atomic_path(target) as path:
        if source.name.endswith(".gz"):
            shutil.copyfile(source, path)
            return
        with (
            source.open("rb") as content,
            path.open("wb") as stream,
            gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as compressed,
        ):
            shutil.copyfileobj(content, compressed)
