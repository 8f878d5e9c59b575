"""The plain statistical simulator: group GLM betas plus coloured Gaussian noise.

    residual(v, t) = Σ_k beta_k(v) · regressor_k(t) + sd(v) · noise(v, t)

with the betas averaged over the training participants, the noise coloured in
space and time (`fmrisynth.noise`) and estimated from what the GLM leaves of the
training runs, and the carrier of the run that is imitated. It is what one would
write without a network, and what a network has to beat.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs, is_finished, write_synthetic_run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.errors import DataError
from fmrisynth.noise import ColouredNoise
from fmrisynth.preprocess.design import design_of
from fmrisynth.preprocess.grid import Grid, choose_grid, resample
from fmrisynth.preprocess.volumes import (
    Carrier,
    drift_basis,
    merge,
    remove_drift,
    removed_basis,
    split,
)

__all__ = ["GroupGlm", "fit_group_glm", "write_baseline"]

NOISE_RUNS = 48  # runs that the noise is estimated from, at most
MULTIPLE = 2  # the noise's FFT wants even sizes


@dataclass(frozen=True)
class GroupGlm:
    """A fitted simulator.

    Attributes
    ----------
    grid : Grid
        Where its maps live: the first training run's lattice, cropped to the brain.
    betas : dict
        (task, trial_type) to (2, V) effects in %, of the canonical response and
        of its derivative, on the grid's voxels.
    noise : ColouredNoise
        Of one channel and unit variance.
    high_pass : float
        Hz.
    """

    grid: Grid
    betas: dict[tuple[str, str], np.ndarray]
    noise: ColouredNoise
    high_pass: float


def _series(run: Run, grid: Grid, high_pass: float) -> np.ndarray:
    """Residual of a run on the grid's voxels, (T, V) %."""
    carrier, residual = split(load_bold(run), high_pass)
    return resample(residual, carrier.affine, grid.affine, grid.shape)[grid.mask].T


def _design(run: Run, high_pass: float) -> tuple[list[str], np.ndarray]:
    """Trial types of a run and their regressors, (T, K, 2)."""
    events = read_events(run.events, duration=run.n_volumes * run.t_r)
    names = sorted(str(name) for name in events["trial_type"].unique())
    design = design_of(
        events, names, run.n_volumes, run.t_r, start_time=run.start_time, high_pass=high_pass
    )
    return names, design.evoked


def fit_group_glm(runs: Sequence[Run], high_pass: float, seed: int) -> GroupGlm:
    """Fit the simulator to the training participants' runs.

    Parameters
    ----------
    runs : sequence of Run
        Real runs of the training participants.
    high_pass : float
        Highest drift frequency, Hz.
    seed : int
        Of the choice of runs that the noise is estimated from.

    Raises
    ------
    DataError
        There is no run.
    """
    if not runs:
        raise DataError("The group GLM needs runs of training participants; there are none.")
    masks = [(load_bold(run).mask, run.affine) for run in runs[:: max(1, len(runs) // 16)]]
    grid = choose_grid(masks, None, MULTIPLE)
    sums: dict[tuple[str, str], np.ndarray] = {}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for run in tqdm(runs, desc="Group GLM", unit="run"):
        series = _series(run, grid, high_pass)
        names, regressors = _design(run, high_pass)
        effects = np.linalg.pinv(regressors.reshape(len(series), -1)) @ series
        for name, effect in zip(names, effects.reshape(len(names), 2, -1), strict=True):
            key = (run.task, name)
            sums[key] = sums.get(key, 0) + effect
            counts[key] += 1
    betas = {key: total / counts[key] for key, total in sums.items()}
    chosen = sorted(np.random.default_rng(seed).permutation(len(runs))[:NOISE_RUNS].tolist())
    typical = sorted(runs, key=lambda run: run.n_volumes)[len(runs) // 2]
    noise = ColouredNoise(1, torch.from_numpy(grid.mask)).fit(
        (
            _noise_field(runs[i], grid, betas, high_pass)
            for i in tqdm(chosen, desc="Noise", unit="run")
        ),
        removed_basis(typical.n_volumes, typical.t_r, high_pass),
    )
    return GroupGlm(grid, betas, noise, high_pass)


def _noise_field(
    run: Run, grid: Grid, betas: dict[tuple[str, str], np.ndarray], high_pass: float
) -> torch.Tensor:
    """Return what the group's response leaves of a run, standardised by voxel, (T, 1, X, Y, Z).

    Not what the run's own GLM leaves: its regressors are slow, and a dozen of
    them take the slow part of the noise along.
    """
    series = _series(run, grid, high_pass)
    names, regressors = _design(run, high_pass)
    for index, name in enumerate(names):
        series = series - regressors[:, index] @ betas[run.task, name]
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
    carrier, _ = split(load_bold(run), model.high_pass)
    names, regressors = _design(run, model.high_pass)
    generator = torch.Generator().manual_seed(seed)
    noise = model.noise.sample(run.n_volumes, generator)[:, 0].numpy()  # T X Y Z
    grid, brain = model.grid, carrier.mask
    shape = (brain.shape[0], brain.shape[1], brain.shape[2])
    evoked = np.zeros((*grid.shape, run.n_volumes), np.float32)
    for index, name in enumerate(names):
        if (beta := model.betas.get((run.task, name))) is not None:
            evoked[grid.mask] += (regressors[:, index] @ beta).T
    evoked = resample(evoked, grid.affine, carrier.affine, shape)
    noise = resample(np.moveaxis(noise, 0, -1), grid.affine, carrier.affine, shape)
    basis = drift_basis(run.n_volumes, run.t_r, model.high_pass)
    series = remove_drift(noise[brain].T, basis)
    series *= carrier.noise_sd[brain] / np.maximum(series.std(axis=0), 1e-6)
    residual = np.zeros((*shape, run.n_volumes), np.float32)
    residual[brain] = series.T + evoked[brain]
    return merge(carrier, residual, model.high_pass), carrier


def write_baseline(
    training: Sequence[Run],
    imitated: Sequence[Run],
    out: Path,
    high_pass: float,
    seed: int,
) -> tuple[Run, ...]:
    """Fit the simulator and write one run for each of those imitated, as files.

    Parameters
    ----------
    training, imitated : sequence of Run
        Runs to fit, and runs to imitate (those of the held-out participants).
    out : pathlib.Path
        Scratch directory; finished runs in it are kept.
    high_pass : float
        Highest drift frequency, Hz.
    seed : int
        Of all noise.

    Returns
    -------
    tuple of Run
        The simulated runs.
    """
    provenance: dict[str, Any] = {"Generator": "group-glm", "RandomSeed": seed}
    missing = [r for r in imitated if not is_finished(out, r, provenance=provenance)]
    if missing:
        model = fit_group_glm(training, high_pass, seed)
        with ThreadPoolExecutor(1) as writer:
            pending = []
            for index, run in enumerate(tqdm(missing, desc="Simulating", unit="run")):
                data, carrier = simulate(model, run, seed * 100_003 + index)
                pending.append(
                    writer.submit(
                        write_synthetic_run, out, run, data, carrier.mask, provenance=provenance
                    )
                )
                if len(pending) > 1:
                    pending.pop(0).result()
            for future in pending:
                future.result()
    return find_synthetic_runs(out)
