"""Estimate the signal of the simulators: betas of a group GLM, averaged over training runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.errors import DataError
from fmrisynth.preprocess.carrier import Carrier, split
from fmrisynth.preprocess.design import design_of
from fmrisynth.preprocess.grid import Grid, choose_grid, resample
from fmrisynth.runtime.progress import track
from fmrisynth.runtime.workers import Map

__all__ = ["GroupResponse", "fit_group_response", "residual_series"]

MULTIPLE = 2  # the coloured noise's FFT wants even sizes
MASKS = 16  # runs that the grid is chosen from, about


@dataclass(frozen=True)
class GroupResponse:
    """What the group does at each trial type.

    Attributes
    ----------
    grid : Grid
        Where the maps live: the first training run's lattice, cropped to the brain.
    betas : mapping
        (task, trial_type) to (2, V) effects in %, of the canonical response and
        of its derivative, on the grid's voxels.
    high_pass : float
        Highest drift frequency, Hz.
    """

    grid: Grid
    betas: Mapping[tuple[str, str], np.ndarray]
    high_pass: float

    def evoked(self, run: Run) -> np.ndarray:
        """Compute what a run's events evoke on the grid's voxels, (T, V) %; 0 for unknown ones."""
        names, regressors = _design(run, self.high_pass)
        series = np.zeros((run.n_volumes, int(self.grid.mask.sum())), np.float32)
        for index, name in enumerate(names):
            if (beta := self.betas.get((run.task, name))) is not None:
                series += regressors[:, index] @ beta
        return series

    def evoked_on(self, run: Run, carrier: Carrier) -> np.ndarray:
        """Return the same on the run's own grid, (X, Y, Z, T) %."""
        evoked = np.zeros((*self.grid.shape, run.n_volumes), np.float32)
        evoked[self.grid.mask] = self.evoked(run).T
        shape = carrier.mask.shape
        return resample(evoked, self.grid.affine, carrier.affine, (shape[0], shape[1], shape[2]))


def residual_series(run: Run, grid: Grid, high_pass: float) -> np.ndarray:
    """Residual of a run on a grid's voxels, (T, V) %."""
    carrier, residual = split(load_bold(run, brain_only=True), high_pass, overwrite=True)
    return resample(residual, carrier.affine, grid.affine, grid.shape)[grid.mask].T


def fit_group_response(runs: Sequence[Run], high_pass: float, each: Map = map) -> GroupResponse:
    """Average each trial type's effects over runs.

    Parameters
    ----------
    runs : sequence of Run
        Real runs of the training participants.
    high_pass : float
        Highest drift frequency, Hz.
    each : Map
        Reads the runs.

    Raises
    ------
    DataError
        There is no run.
    """
    if not runs:
        raise DataError("The group GLM needs runs of training participants; there are none.")
    some = runs[:: max(1, len(runs) // MASKS)]
    masks = [(mask, run.affine) for run, mask in zip(some, each(_mask, some), strict=True)]
    grid = choose_grid(masks, None, MULTIPLE)
    sums: dict[tuple[str, str], np.ndarray] = {}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    fitted = each(partial(_effects, grid=grid, high_pass=high_pass), runs)
    for effects in track(fitted, total=len(runs), desc="Group GLM", unit="run"):
        for key, effect in effects.items():
            sums[key] = sums.get(key, 0) + effect
            counts[key] += 1
    return GroupResponse(grid, {key: sums[key] / counts[key] for key in sums}, high_pass)


def _mask(run: Run) -> np.ndarray:
    return load_bold(run, brain_only=True).mask


def _effects(run: Run, *, grid: Grid, high_pass: float) -> dict[tuple[str, str], np.ndarray]:
    """Fit a run's effects: (task, trial type) to (2, V) %."""
    series = residual_series(run, grid, high_pass)
    names, regressors = _design(run, high_pass)
    effects = np.linalg.pinv(regressors.reshape(len(series), -1), rcond=1e-4) @ series
    by_name = effects.reshape(len(names), 2, series.shape[1])
    return {(run.task, name): effect for name, effect in zip(names, by_name, strict=True)}


def _design(run: Run, high_pass: float) -> tuple[list[str], np.ndarray]:
    """Trial types of a run and their regressors, (T, K, 2)."""
    events = read_events(run.events, duration=run.duration)
    names = sorted(str(name) for name in events["trial_type"].unique())
    design = design_of(
        events, names, run.n_volumes, run.t_r, start_time=run.start_time, high_pass=high_pass
    )
    return names, design.evoked
