"""Fit the frame-wise intensity of the noise: how far it exceeds what Gaussian noise does anyway."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.intensity import FrameIntensity
from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.runtime.progress import track
from fmrisynth.training.prepare import sample_runs
from fmrisynth.training.windows import LatentRuns

__all__ = ["expect_intensities", "fit_intensity", "log_energy"]

GAUSSIAN_RUNS = 24  # noise drawn to see how much a Gaussian run's energy fluctuates
FLOOR = 1e-6

log = logging.getLogger(__name__)


def fit_intensity(
    runs: LatentRuns, noise: NoiseModel, seed: int
) -> tuple[FrameIntensity, LatentRuns]:
    """Estimate each training run's intensities, and their distribution.

    The energy of a frame fluctuates in Gaussian noise, too, the more the fewer dimensions the
    noise has. Of the logarithm's variance only what exceeds that of the noise model counts.

    Parameters
    ----------
    runs : LatentRuns
        The training runs.
    noise : NoiseModel
        Fitted to them; says what is Gaussian.
    seed : int
        Seed of the noise that is drawn.

    Returns
    -------
    intensity : FrameIntensity
        On the CPU.
    runs : LatentRuns
        With their intensities, which are divided out of the noise.
    """
    courses = [
        log_energy(runs.noise(index), noise)
        for index in track(range(len(runs)), desc="Intensities", unit="run")
    ]
    generator = torch.Generator().manual_seed(seed)
    lengths = [len(course) for course in courses]
    gaussian = [
        log_energy(noise.sample_window(min(lengths), generator), noise)
        for _ in range(GAUSSIAN_RUNS)
    ]
    chance = float(np.mean([course.var() for course in gaussian]))
    intensity = FrameIntensity()
    intensity.chance.fill_(chance)
    intensity.fit([intensity.shrink(course) for course in courses])
    log.info(
        "SD of the frames' log intensity: %.3f, of which Gaussian noise has %.3f",
        float(np.mean([c.std() for c in courses])),
        chance**0.5,
    )
    return intensity, replace(runs, intensities=[intensity.of_run(c) for c in courses])


def expect_intensities(
    noise: NoiseModel,
    intensity: FrameIntensity,
    runs: LatentRuns,
    removed: np.ndarray,
    n_lags: int,
    seed: int,
) -> None:
    """Prepare noise that was fitted to runs with their bursts for being multiplied by intensities.

    It keeps its covariance with bursts, whose place is not that of other frames. Windows, which
    are divided by intensities, have a lower variance where noise is loudest in bursts.

    Parameters
    ----------
    noise : NoiseModel
        Fitted to the runs; changed in place.
    intensity : FrameIntensity
        What runs will be multiplied by.
    runs : LatentRuns
        With their intensities.
    removed : ndarray of shape (N, K)
        Orthonormal: mean and drift, which runs are without.
    n_lags : int
        Number of lags at which intensities count.
    seed : int
        Seed of the choice of runs.
    """
    noise.divide_lags(intensity.agreement(n_lags), removed)
    if runs.intensities is not None:
        with_bursts, courses = replace(runs, intensities=None), runs.intensities
        chosen = track(sample_runs(len(runs), seed), desc="Bursts", unit="run")
        noise.fit_steadiness((with_bursts.noise(i), courses[i]) for i in chosen)


def log_energy(field: Tensor, noise: NoiseModel) -> np.ndarray:
    """Compute log s of each frame, half the log of its energy, (N,); see `frame_energy`."""
    energy = noise.frame_energy(field).double().cpu().numpy()
    return 0.5 * np.log(np.maximum(energy, FLOOR))
