"""Find the task runs of a BIDS dataset.

Three forms of input are understood, in this order: raw BIDS plus preprocessed
derivatives; a tree that holds preprocessed images and events itself; raw
images that already share one space.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fmrisynth.bids.candidates import Candidate, Skipped, choose_images
from fmrisynth.bids.common_space import require_common_space
from fmrisynth.bids.headers import (
    HeaderCache,
    check_present,
    repetition_time,
    require_bold,
)
from fmrisynth.bids.index import database_folder
from fmrisynth.bids.names import in_filename_order
from fmrisynth.bids.selection import Selection
from fmrisynth.bids.sidecars import Sidecars
from fmrisynth.bids.sources import derivative_roots, require_dataset
from fmrisynth.errors import DataError, NoMatchError

__all__ = ["BoldRun", "Dataset", "Run", "find_bold_runs", "find_runs"]

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
_PHASE_ENCODINGS = {"i", "i-", "j", "j-", "k", "k-"}
# Metadata that derivatives do not repeat, but that hold for them as for the raw image.
_FROM_RAW = ("RepetitionTime", "TaskName", "PhaseEncodingDirection", "InstitutionName")
_NO_EVENTS = "no events.tsv"
_LATEST_START = 100.0  # s; half of a TR, and discarded volumes on top


@dataclass(frozen=True, eq=False, kw_only=True)  # arrays have no single equality
class BoldRun:
    """One run on disk, with or without a task.

    Attributes
    ----------
    entities : mapping of str to str
        Short BIDS keys in the order of file names, without space, res and desc.
    bold : Path
        The 4D image.
    mask : Path or None
        Brain mask of the same space, where the derivatives have one.
    space, resolution : str or None
        Labels of the image's space and res entities.
    t_r : float
        Repetition time (s).
    start_time : float
        StartTime of the sidecar (s): the time of the first volume.
    shape : tuple of int
        (X, Y, Z).
    n_volumes : int
        Number of volumes.
    affine : ndarray of shape (4, 4)
        Voxel indices to mm.
    phase_encoding : str
        PhaseEncodingDirection, else the dir entity, else "unknown".
    site : str
        InstitutionName, else column site or scanner of participants.tsv, else "unknown".
    metadata : mapping
        Sidecar of the image, with inheritance.
    """

    entities: Mapping[str, str]
    bold: Path
    mask: Path | None
    space: str | None
    resolution: str | None
    t_r: float
    start_time: float
    shape: tuple[int, int, int]
    n_volumes: int
    affine: np.ndarray
    phase_encoding: str = UNKNOWN
    site: str = UNKNOWN
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def participant(self) -> str:
        """Label of the participant, without ``sub-``."""
        return self.entities["sub"]

    @property
    def session(self) -> str | None:
        """Label of the session, without ``ses-``."""
        return self.entities.get("ses")

    @property
    def task(self) -> str:
        """Label of the task, without ``task-``."""
        return self.entities["task"]

    @property
    def label(self) -> str:
        """Name of the run in messages: ``sub-01_task-motor_run-1``."""
        return "_".join(f"{key}-{label}" for key, label in self.entities.items())

    @property
    def duration(self) -> float:
        """Length of the run (s)."""
        return self.n_volumes * self.t_r


@dataclass(frozen=True, eq=False, kw_only=True)
class Run(BoldRun):
    """One task run on disk.

    Attributes
    ----------
    events : Path
        The run's events.tsv, from the raw dataset or the derivatives.
    """

    events: Path


@dataclass(frozen=True)
class Dataset:
    """The usable runs of a BIDS dataset, and the skipped files.

    Attributes
    ----------
    root : Path
        The BIDS directory.
    runs : tuple of Run
        Sorted by participant, session, task, …
    skipped : tuple of (Path, str)
        Files that cannot be used, and the reason.
    derivatives : mapping of str to Path
        Name and root of the derivative datasets in use.
    """

    root: Path
    runs: tuple[Run, ...]
    skipped: tuple[tuple[Path, str], ...] = ()
    derivatives: Mapping[str, Path] = field(default_factory=dict)


def find_runs(
    bids_dir: str | Path,
    *,
    derivatives: Mapping[str, str | Path] | Sequence[str | Path] = (),
    selection: Selection | None = None,
    database_dir: Path | None = None,
) -> Dataset:
    """Find the task runs of a BIDS dataset.

    Of several spaces the selected one is used, else MNI152NLin2009cAsym, else
    the first MNI one; of several resolutions the one that most runs have,
    native first. Images of resting state (``task-rest*`` without events) are
    not task runs and are left out silently.

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
        When there is no BOLD image, none that the selection matches, or no events.
    DataError
        When not one of the runs can be used.
    """
    selection = selection or Selection()
    root = require_dataset(Path(bids_dir))
    roots = derivative_roots(root, derivatives)
    images, skipped = choose_images(
        root, roots, selection, database_dir, derivatives_given=bool(derivatives)
    )
    cache = HeaderCache(database_dir and database_folder(root, database_dir) / "headers.json")
    reader = _RunReader(root, cache)
    runs = []
    for image in images:
        try:
            run = reader.read(image)
        except DataError as error:
            # The path stands before the reason wherever both are shown.
            skipped.append((image.path, str(error).replace(str(image.path), image.path.name)))
            continue
        if run is not None:
            runs.append(run)
    cache.save()
    if not runs:
        _raise_nothing_left(root, len(images), skipped)
    for path, reason in skipped:
        log.warning("skipped %s: %s", path, reason)
    _warn_of_unlisted(root / "participants.tsv", reader.table, runs)
    if runs[0].space is None:
        require_common_space(runs)
    used = {image.root for image in images}
    return Dataset(
        root=root,
        runs=tuple(runs),
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
    reader = _RunReader(root, HeaderCache(None))
    runs = tuple(reader.read_any(image) for image in images)
    if runs[0].space is None:
        require_common_space(runs)
    return runs


class _RunReader:
    """Reads the run of an image; keeps the folder listings of the datasets."""

    def __init__(self, bids_dir: Path, cache: HeaderCache) -> None:
        self.raw = Sidecars(bids_dir)
        self.sidecars = {bids_dir: self.raw}
        self.table = _participants_table(bids_dir / "participants.tsv")
        self.cache = cache

    def read(self, image: Candidate) -> Run | None:
        """Build the Run of an image; None for resting state."""
        entities = in_filename_order(image.run_entities)
        if self._events(image, entities) is None:
            if entities["task"].lower().startswith("rest"):
                return None
            raise DataError(
                f"{_NO_EVENTS} applies to it: looked for {self._expected_events(entities)} and, by "
                "inheritance, above it"
            )
        run = self.read_any(image)
        return run if isinstance(run, Run) else None

    def read_any(self, image: Candidate) -> BoldRun:
        """Build the Run of an image that has events, the BoldRun of one that has none."""
        own = self.sidecars.setdefault(image.root, Sidecars(image.root))
        entities = in_filename_order(image.run_entities)
        events = self._events(image, entities)
        if events is not None:
            check_present(events)
        header = self.cache.read(image.path)
        require_bold(header, image.path)
        metadata = self._metadata(image, own, entities)
        fields: dict[str, Any] = {
            "entities": entities,
            "bold": image.path,
            "mask": _mask(image, own),
            "space": image.entities.get("space"),
            "resolution": image.entities.get("res"),
            "t_r": repetition_time(metadata, header, image.path),
            "start_time": _start_time(metadata, image.path),
            "shape": (header.shape[0], header.shape[1], header.shape[2]),
            "n_volumes": header.shape[3],
            "affine": header.affine,
            "phase_encoding": _phase_encoding(metadata, entities),
            "site": _site(metadata, self.table.get(entities["sub"])),
            "metadata": metadata,
        }
        return BoldRun(**fields) if events is None else Run(**fields, events=events)

    def _events(self, image: Candidate, entities: Mapping[str, str]) -> Path | None:
        own = self.sidecars.setdefault(image.root, Sidecars(image.root))
        return self.raw.nearest(entities, "_events.tsv") or own.nearest(entities, "_events.tsv")

    def _metadata(
        self, image: Candidate, own: Sidecars, entities: Mapping[str, str]
    ) -> dict[str, Any]:
        metadata = own.metadata(image.entities, "bold")
        if own is not self.raw:
            raw = self.raw.metadata(entities, "bold")
            if "PhaseEncodingDirection" not in raw:  # multi-echo: the echoes share it
                raw = {**self.raw.metadata({**entities, "echo": "1"}, "bold"), **raw}
            metadata = {key: raw[key] for key in _FROM_RAW if key in raw} | metadata
        return metadata

    def _expected_events(self, entities: Mapping[str, str]) -> Path:
        name = "_".join(f"{key}-{label}" for key, label in entities.items())
        return self.raw.folder_of(entities) / f"{name}_events.tsv"


def _mask(image: Candidate, own: Sidecars) -> Path | None:
    """Find the brain mask of the same run and space."""
    entities = {**image.entities, "desc": "brain"}
    required = {k: v for k, v in entities.items() if k in {"sub", "space", "desc"}}
    for extension in (".nii.gz", ".nii"):
        path = own.nearest(entities, f"_mask{extension}", required)
        if path is not None:
            check_present(path)
            return path
    return None


def _phase_encoding(metadata: Mapping[str, Any], entities: Mapping[str, str]) -> str:
    direction = metadata.get("PhaseEncodingDirection")
    if isinstance(direction, str) and direction in _PHASE_ENCODINGS:
        return direction
    return entities.get("dir", UNKNOWN)


def _start_time(metadata: Mapping[str, Any], path: Path) -> float:
    """Read StartTime (s); ignore what is no number of seconds near 0, with a warning."""
    stated = metadata.get("StartTime", 0.0)
    number = isinstance(stated, int | float) and not isinstance(stated, bool)
    if number and abs(stated) <= _LATEST_START:
        return float(stated)
    log.warning(
        "%s: StartTime %.40r is ignored; seconds up to %g are expected", path, stated, _LATEST_START
    )
    return 0.0


def _site(metadata: Mapping[str, Any], from_table: str | None) -> str:
    institution = metadata.get("InstitutionName")
    if isinstance(institution, str) and institution.strip():
        return institution.strip()
    return from_table or UNKNOWN


def _participants_table(participants: Path) -> dict[str, str | None]:
    """Read each participant's site or scanner from participants.tsv; a broken table gives none."""
    try:
        with participants.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        log.warning("%s is ignored, it cannot be read: %s", participants, error)
        return {}
    table: dict[str, str | None] = {}
    for row in rows:
        label = (row.get("participant_id") or "").removeprefix("sub-")
        site = row.get("site") or row.get("scanner") or "n/a"
        table[label] = None if site == "n/a" else site
    return table


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
    if all(_NO_EVENTS in reason for _, reason in skipped):
        raise NoMatchError(
            f"none of the {n_images} BOLD images of {root} has events, and a task run needs them "
            "(resting-state images do not count). Give the raw dataset that holds events.tsv as "
            f"BIDS_DIR, and the preprocessed one with --derivatives.{reasons}{more}"
        )
    raise DataError(f"none of the {n_images} BOLD images of {root} can be used:{reasons}{more}")
