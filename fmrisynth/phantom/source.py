"""Divide real runs among tasks, and remove their own responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fmrisynth.bids.dataset import BoldRun, Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import Bold
from fmrisynth.errors import DataError
from fmrisynth.phantom.responses import STEP, haemodynamic_response

__all__ = [
    "Piece",
    "SourceGrid",
    "choose_tasks",
    "percent_reference",
    "plan_pieces",
    "without_own_responses",
]

# Tasks in the order in which they are used when none is named: many conditions first.
_PREFERENCE = ("MOTOR", "WM", "SOCIAL", "LANGUAGE", "EMOTION", "RELATIONAL", "GAMBLING")
_TYPICAL_PIECE = 120.0  # s; tasks are added as long as no piece is shorter
_SHORTEST_PIECE = 30.0  # s, to hold a block of each condition
_CUTOFF = 128.0  # s, of the drift in the model of the source's own responses
_LEAST_TSNR = 3.0  # mean over SD of a median voxel, below which there is no mean to refer to


@dataclass(frozen=True)
class SourceGrid:
    """The voxel grid of a real image.

    Attributes
    ----------
    shape : tuple of int
        Voxels along the first, second and third axis.
    affine : ndarray of shape (4, 4)
        Voxel indices to mm.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Edges of a voxel in mm."""
        x, y, z = (float(edge) for edge in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    def coordinates(self, mask: np.ndarray) -> np.ndarray:
        """Return the centres of the voxels of `mask` (X, Y, Z) in mm, (3, V)."""
        index = np.stack(np.nonzero(mask))
        return (self.affine[:3, :3] @ index + self.affine[:3, 3:]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of a real run that becomes a run of the cohort.

    Attributes
    ----------
    run : BoldRun
        The real run.
    start, stop : int
        First volume, and the one after the last.
    task : str
        Whose responses are implanted.
    entities : mapping of str to str
        Of the new run, in the order of file names.
    """

    run: BoldRun
    start: int
    stop: int
    task: str
    entities: Mapping[str, str]

    @property
    def n_volumes(self) -> int:
        """Number of volumes."""
        return self.stop - self.start

    @property
    def stem(self) -> str:
        """Beginning of the names of its files."""
        return "_".join(f"{key}-{label}" for key, label in self.entities.items())


def choose_tasks(runs_by_participant: Mapping[str, Sequence[BoldRun]]) -> tuple[str, ...]:
    """Return as many tasks as give every participant pieces of at least 120 s; at least one."""
    n_tasks = 1
    while n_tasks < len(_PREFERENCE) and all(
        min(_lengths(runs, n_tasks + 1)) >= _TYPICAL_PIECE for runs in runs_by_participant.values()
    ):
        n_tasks += 1
    return _PREFERENCE[:n_tasks]


def _lengths(runs: Sequence[BoldRun], n_tasks: int) -> list[float]:
    n_parts = -(-n_tasks // len(runs))
    return [run.n_volumes // n_parts * run.t_r for run in runs]


def plan_pieces(runs: Sequence[BoldRun], tasks: Sequence[str], turn: int) -> tuple[Piece, ...]:
    """Divide the runs of one participant among the tasks.

    Where there are fewer runs than tasks, each run is cut into consecutive parts of equal
    length. The parts take the tasks in turn.

    Parameters
    ----------
    runs : sequence of BoldRun
        All runs of the participant.
    tasks : sequence of str
        Each gets at least one piece.
    turn : int
        Number of the participant: the order of the tasks starts at another one for each, so
        that a task is not always the first in the scanner.

    Raises
    ------
    DataError
        A piece would be too short to hold a block of each condition.
    """
    n_parts = -(-len(tasks) // len(runs))
    stretches = []
    for run in runs:
        length = run.n_volumes // n_parts
        if length * run.t_r < _SHORTEST_PIECE:
            raise DataError(
                f"{run.bold} lasts {run.duration:g} s; cut into {n_parts} for {len(tasks)} tasks, "
                f"a part lasts {length * run.t_r:g} s, and at least {_SHORTEST_PIECE:g} s are "
                "needed. Ask for fewer tasks."
            )
        stretches += [(run, part * length, (part + 1) * length) for part in range(n_parts)]
    named = []
    for place, (run, _, _) in enumerate(stretches):
        task = tasks[(place + turn) % len(tasks)]
        kept = {key: run.entities[key] for key in ("sub", "ses") if key in run.entities}
        direction = {"dir": run.entities["dir"]} if "dir" in run.entities else {}
        named.append({**kept, "task": task, **direction})
    totals = Counter(tuple(entities.items()) for entities in named)
    numbers: Counter[tuple[tuple[str, str], ...]] = Counter()
    pieces = []
    for (run, start, stop), entities in zip(stretches, named, strict=True):
        key = tuple(entities.items())
        numbers[key] += 1
        number = {"run": str(numbers[key])} if totals[key] > 1 else {}
        pieces.append(Piece(run, start, stop, entities["task"], {**entities, **number}))
    return tuple(pieces)


def percent_reference(bold: Bold, run: BoldRun) -> np.ndarray:
    """Return the mean over time of each brain voxel, (V,): what percent signal change refers to.

    Raises
    ------
    DataError
        The mean was removed from the run.
    """
    values = bold.data[bold.mask]
    mean = values.mean(axis=1, dtype=np.float64)
    if not np.median(mean / values.std(axis=1)) > _LEAST_TSNR:
        raise DataError(
            f"{run.bold} has no mean to which percent signal change could refer: a median voxel's "
            f"mean is less than {_LEAST_TSNR:g} times its SD over time. Give images whose mean "
            "was not removed."
        )
    return np.maximum(mean, 0.0)


def without_own_responses(values: np.ndarray, run: BoldRun) -> np.ndarray:
    """Subtract the fitted responses to the events of a run.

    The model has a double-gamma response to each trial type with its derivatives by time and
    by dispersion, next to a constant and slow cosines, which stay.

    Parameters
    ----------
    values : ndarray of shape (T, V)
        The run.
    run : BoldRun
        Without events, nothing is subtracted.
    """
    if not isinstance(run, Run):
        return values
    events = read_events(run.events, duration=run.duration)
    regressors = _own_regressors(events, run)
    regressors = regressors[:, np.abs(regressors).max(axis=0) > 1e-6]
    n_cosines = int(2.0 * run.duration / _CUTOFF) + 1
    place = np.arange(run.n_volumes)[:, None] + 0.5
    drift = np.cos(np.pi * place * np.arange(n_cosines) / run.n_volumes)
    design = np.hstack([regressors, drift])
    weights = (np.linalg.pinv(design, rcond=1e-6) @ values)[: regressors.shape[1]]
    return (values - regressors @ weights).astype(values.dtype)


def _own_regressors(events: pd.DataFrame, run: BoldRun) -> np.ndarray:
    """Return three regressors of each trial type, (T, 3 C)."""
    kernel = haemodynamic_response()
    kernels = [
        kernel,
        haemodynamic_response(1.0) - kernel,
        haemodynamic_response(0.0, 1.01) - kernel,
    ]
    frames = np.round((run.start_time + run.t_r * np.arange(run.n_volumes)) / STEP).astype(int)
    last = max(int(frames[-1]), 0) + 1
    columns = []
    for _, rows in events.groupby("trial_type"):
        drive = np.zeros(last)
        for onset, duration in zip(rows["onset"], rows["duration"], strict=True):
            first = max(round(onset / STEP), 0)
            drive[first : max(first + 1, round((onset + duration) / STEP))] += 1.0
        columns += [np.convolve(drive, k)[np.clip(frames, 0, last - 1)] for k in kernels]
    return np.stack(columns, axis=1)
