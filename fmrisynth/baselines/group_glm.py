"""Simulate runs by statistics alone: group GLM betas plus autocorrelated Gaussian noise.

    residual(v, t) = Σ_k beta_k(v) · regressor_k(t) + sd(v) · noise(v, t)

with the betas averaged over the training participants, the noise coloured in
space and time (`fmrisynth.model.noise.stationary`) and estimated from what the GLM leaves of the
training runs, and the carrier of the run that is imitated. It is what one would
write without a network, and what a network has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from fmrisynth.baselines.group_response import (
    GroupResponse,
    fit_group_response,
    residual_series,
)
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import load_bold
from fmrisynth.model.noise.stationary import FieldSums, StationaryNoise
from fmrisynth.preprocess.carrier import (
    Carrier,
    drift_basis,
    merge,
    remove_drift,
    removed_basis,
    split,
)
from fmrisynth.preprocess.grid import Grid, resample_into
from fmrisynth.runtime.progress import track
from fmrisynth.runtime.randomness import keyed_seed
from fmrisynth.runtime.workers import Map

__all__ = ["GroupGlm", "fit_group_glm", "simulate"]

NOISE_RUNS = 48  # runs that the noise is estimated from, at most


@dataclass(frozen=True)
class GroupGlm:
    """A fitted simulator.

    Attributes
    ----------
    response : GroupResponse
        Betas and the grid they live on.
    noise : StationaryNoise
        Of one channel and unit variance, on the same grid.
    """

    response: GroupResponse
    noise: StationaryNoise


def fit_group_glm(runs: Sequence[Run], high_pass: float, seed: int, each: Map = map) -> GroupGlm:
    """Fit the simulator to the training participants' runs.

    Parameters
    ----------
    runs : sequence of Run
        Real runs of the training participants.
    high_pass : float
        Highest drift frequency, Hz.
    seed : int
        Of the choice of runs that the noise is estimated from.
    each : Map
        Reads the runs.

    Raises
    ------
    DataError
        There is no run.
    """
    response = fit_group_response(runs, high_pass, each)
    order = sorted(runs, key=lambda run: keyed_seed(seed, "group-glm noise", run.label))
    labels = {run.label for run in order[:NOISE_RUNS]}
    chosen = [run for run in runs if run.label in labels]
    typical = sorted(runs, key=lambda run: run.n_volumes)[len(runs) // 2]
    sums = each(partial(_noise_sums, response=response), chosen)
    noise = _unfitted(response.grid).fit_sums(
        track(sums, total=len(chosen), desc="Noise", unit="run"),
        removed_basis(typical.n_volumes, typical.t_r, high_pass),
    )
    return GroupGlm(response, noise)


def _unfitted(grid: Grid) -> StationaryNoise:
    # whole runs alone are drawn: lags that windows would need are not estimated
    return StationaryNoise(1, torch.from_numpy(grid.mask), frames=2)


def _noise_sums(run: Run, *, response: GroupResponse) -> FieldSums:
    """Sum up what the noise's fit needs of a run."""
    return _unfitted(response.grid).sums_of(_noise_field(run, response))


def _noise_field(run: Run, response: GroupResponse) -> torch.Tensor:
    """Return what the group's response leaves of a run, standardised by voxel, (T, 1, X, Y, Z).

    Not what the run's own GLM leaves: its regressors are slow, and a dozen of
    them take the slow part of the noise along.
    """
    grid = response.grid
    series = residual_series(run, grid, response.high_pass) - response.evoked(run)
    deviation = series.std(axis=0)
    field = np.zeros((len(series), 1, *grid.shape), np.float32)
    field[:, 0, grid.mask] = series / np.where(deviation > 0, deviation, 1)
    return torch.from_numpy(field)


def simulate(model: GroupGlm, run: Run, seed: int) -> tuple[np.ndarray, Carrier]:
    """Simulate one run on its own grid, with its own carrier.

    Returns
    -------
    bold : numpy.ndarray
        (X, Y, Z, T) float32 in the run's units.
    carrier : Carrier
        Its mask is the brain that was filled.
    """
    grid, high_pass = model.response.grid, model.response.high_pass
    carrier, _ = split(load_bold(run, brain_only=True), high_pass, overwrite=True)
    generator = torch.Generator().manual_seed(seed)
    noise = model.noise.sample_run(run.n_volumes, run.t_r, generator)[:, 0].numpy()  # T X Y Z
    brain = carrier.mask
    shape = (brain.shape[0], brain.shape[1], brain.shape[2])
    evoked = model.response.evoked_on(run, carrier)
    series = resample_into(np.moveaxis(noise, 0, -1), grid.affine, carrier.affine, brain)
    basis = drift_basis(run.n_volumes, run.t_r, high_pass)
    series = remove_drift(series.T, basis)
    series *= carrier.noise_sd[brain] / np.maximum(series.std(axis=0), 1e-6)
    residual = np.zeros((*shape, run.n_volumes), np.float32)
    residual[brain] = series.T + evoked[brain]
    return merge(carrier, residual, high_pass), carrier
