"""Describe the runs of a BIDS dataset on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fmrisynth.bids.names import name_space

__all__ = ["UNKNOWN", "BoldRun", "Dataset", "Run", "on_most_common_grid"]

UNKNOWN = "unknown"


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
    space, cohort, resolution : str or None
        Labels of the image's space, cohort and res entities.
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
    confounds : Path or None
        Table of confounds of the run, where the derivatives have one.
    siblings : tuple of Path
        Images of the participant on the same grid, this one included, from which a brain mask
        is computed where the dataset has none.
    """

    entities: Mapping[str, str]
    bold: Path
    mask: Path | None
    space: str | None
    resolution: str | None
    cohort: str | None = None
    t_r: float
    start_time: float
    shape: tuple[int, int, int]
    n_volumes: int
    affine: np.ndarray
    phase_encoding: str = UNKNOWN
    site: str = UNKNOWN
    metadata: Mapping[str, Any] = field(default_factory=dict)
    confounds: Path | None = None
    siblings: tuple[Path, ...] = ()

    @property
    def space_name(self) -> str | None:
        """Name of the space with its cohort: ``MNIPediatricAsym:cohort-2``."""
        return name_space(self.space, self.cohort)

    @property
    def spatial_entities(self) -> dict[str, str]:
        """Entities of the space in file names: space, cohort, res, as far as there are any."""
        labels = {"space": self.space, "cohort": self.cohort, "res": self.resolution}
        return {key: label for key, label in labels.items() if label}

    @property
    def lattice(self) -> tuple[Hashable, ...]:
        """Shape and affine to a thousandth, equal for runs on one voxel grid."""
        return (self.shape, *np.round(self.affine, 3).ravel().tolist())

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
    """One run on disk that can be learned and repeated.

    Attributes
    ----------
    events : Path or None
        The run's events.tsv, from the raw dataset or the derivatives; None for a run without
        a task, as at rest.
    new : bool
        Whether the participant is nobody of the dataset; `bold` of a run that is yet to be
        written names no file then.
    """

    events: Path | None
    new: bool = False


def on_most_common_grid(runs: Sequence[Run]) -> Run:
    """Return the first run on the voxel grid that most runs lie on; the first of several such."""
    grids = [run.lattice for run in runs]
    return runs[grids.index(Counter(grids).most_common(1)[0][0])]


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
