"""Find the runs of a BIDS dataset.

Three forms of input are understood, in this order: raw BIDS plus preprocessed
derivatives; a tree that holds preprocessed images and events itself; raw
images that already share one space.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fmrisynth.bids.candidates import Candidate, Skipped, choose_images
from fmrisynth.bids.common_space import require_common_space
from fmrisynth.bids.dataset import BoldRun, Dataset, Run
from fmrisynth.bids.headers import HeaderCache
from fmrisynth.bids.index import database_folder
from fmrisynth.bids.reader import RunReader
from fmrisynth.bids.selection import Selection
from fmrisynth.bids.sidecars import read_json
from fmrisynth.bids.sources import derivative_roots, require_dataset
from fmrisynth.errors import DataError, NoMatchError

__all__ = ["find_bold_runs", "find_runs"]

log = logging.getLogger(__name__)


def find_runs(
    bids_dir: str | Path,
    *,
    derivatives: Mapping[str, str | Path] | Sequence[str | Path] = (),
    selection: Selection | None = None,
    database_dir: Path | None = None,
    use_raw: bool = False,
) -> Dataset:
    """Find the runs of a BIDS dataset, with and without a task.

    Of several spaces the selected one is used, else MNI152NLin2009cAsym, else
    the first MNI one; of several resolutions the one that most runs have,
    native first. A task none of whose runs has events, such as rest, gives runs
    without events; where some runs of a task have events, those that lack them
    are skipped.

    Parameters
    ----------
    bids_dir : str or Path
        Root of the dataset.
    derivatives : mapping of str to path, or sequence of paths
        Derivative datasets; empty: those under ``bids_dir/derivatives``.
    selection : Selection, optional
        Labels and filters of the runs to find; by default all runs.
    database_dir : Path, optional
        Folder for lists of images and headers, which make the next call fast.
    use_raw : bool
        Take the raw images, whatever derivatives exist.

    Returns
    -------
    Dataset
        At least one run.

    Raises
    ------
    NoInputError
        When a directory does not exist.
    NotBIDSError
        When a directory is not a BIDS dataset.
    NoMatchError
        When there is no BOLD image, none that the selection matches, or derivatives
        exist of which none can be read.
    DataError
        When not one of the runs can be used, or they do not share one space.
    """
    selection = selection or Selection()
    root = require_dataset(Path(bids_dir))
    roots = {} if use_raw else derivative_roots(root, derivatives)
    images, skipped = choose_images(
        root,
        roots,
        selection,
        database_dir,
        derivatives_given=bool(derivatives),
        use_raw=use_raw,
    )
    cache = HeaderCache(database_dir and database_folder(root, database_dir) / "headers.json")
    reader = RunReader(root, cache)
    runs = _read_runs(images, reader, skipped)
    cache.save()
    _require_events(runs, root)
    if not runs:
        _raise_nothing_left(root, len(images), skipped)
    for path, reason in skipped:
        log.warning("skipped %s: %s", path, reason)
    _warn_of_unlisted(root / "participants.tsv", reader.table, runs)
    require_common_space(runs)
    used = {image.root for image in images}
    return Dataset(
        root=root,
        runs=_with_siblings(runs),
        skipped=tuple(skipped),
        derivatives={name: path for name, path in roots.items() if path in used},
    )


def find_bold_runs(bids_dir: Path, *, selection: Selection | None = None) -> tuple[BoldRun, ...]:
    """Find all BOLD runs of a BIDS dataset, resting state included.

    Space and resolution are chosen as in `find_runs`. A run that has events is a `Run`.

    Raises
    ------
    NoInputError, NotBIDSError, NoMatchError
        As `find_runs`, except that no events are needed.
    DataError
        When an image cannot be used.
    """
    root = require_dataset(bids_dir)
    images, _ = choose_images(
        root, derivative_roots(root, ()), selection or Selection(), None, derivatives_given=False
    )
    reader = RunReader(root, HeaderCache(None))
    runs = tuple(reader.read_any(image) for image in images)
    require_common_space(runs)
    return runs


def _read_runs(images: Sequence[Candidate], reader: RunReader, skipped: Skipped) -> list[Run]:
    """Read the runs of the images; those that cannot be used go to `skipped`."""
    timed = {image.entities["task"] for image in images if reader.events_of(image) is not None}
    runs = []
    for image in images:
        task = image.entities["task"]
        try:
            if task in timed:
                reader.require_events(image)
            runs.append(reader.read(image))
        except DataError as error:
            # The path stands before the reason wherever both are shown.
            skipped.append((image.path, str(error).replace(str(image.path), image.path.name)))
    return runs


def _require_events(runs: Sequence[Run], root: Path) -> None:
    """Warn of tasks without any events, and refuse derivatives that were given without the raw.

    Resting state has no events and gives no warning.
    """
    tasks = sorted({run.task for run in runs if run.events is None})
    unusual = [task for task in tasks if not task.lower().startswith("rest")]
    if not unusual:
        return
    derivative = read_json(root / "dataset_description.json").get("DatasetType") == "derivative"
    if derivative and all(run.events is None for run in runs):
        raise NoMatchError(
            f"none of the {len(runs)} BOLD images of {root} has events, and the dataset is a "
            "derivative. Give the raw dataset that holds events.tsv as BIDS_DIR, and this one "
            "with --derivatives."
        )
    log.warning(
        "no run of the task %s has events.tsv; its runs are learned and written like rest",
        ", ".join(unusual),
    )


def _with_siblings(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Tell runs without a brain mask the participant's images on the same grid."""

    def grid_of(run: Run) -> tuple[object, ...]:
        return (run.participant, *run.lattice)

    images: dict[tuple[object, ...], list[Path]] = {}
    for run in runs:
        if run.mask is None:
            images.setdefault(grid_of(run), []).append(run.bold)
    return tuple(
        run if run.mask is not None else replace(run, siblings=tuple(images[grid_of(run)]))
        for run in runs
    )


def _warn_of_unlisted(participants: Path, listed: Iterable[str], runs: Sequence[Run]) -> None:
    """Log the participants that are missing in participants.tsv, where there is one."""
    unlisted = sorted({run.participant for run in runs} - set(listed))
    if unlisted and participants.is_file():
        shown = ", ".join(f"sub-{label}" for label in unlisted[:10])
        more = f" and {len(unlisted) - 10} more" if len(unlisted) > 10 else ""
        log.warning("%s lacks %s%s; their site is unknown", participants, shown, more)


def _raise_nothing_left(root: Path, n_images: int, skipped: Skipped) -> None:
    reasons = "".join(f"\n  {path}: {reason}" for path, reason in skipped[:3])
    more = f"\n  … and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    raise DataError(f"none of the {n_images} BOLD images of {root} can be used:{reasons}{more}")
