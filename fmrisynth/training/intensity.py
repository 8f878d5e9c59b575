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
from fmrisynth.training.windows import LatentRuns

__all__ = ["fit_intensity", "log_energy"]

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
    mask = runs.mask
    courses = [
        log_energy(runs.noise(index), mask)
        for index in track(range(len(runs)), desc="Intensities", unit="run")
    ]
    generator = torch.Generator().manual_seed(seed)
    lengths = [len(course) for course in courses]
    gaussian = [
        log_energy(noise.sample_window(min(lengths), generator), mask) for _ in range(GAUSSIAN_RUNS)
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


def log_energy(noise: Tensor, mask: Tensor) -> np.ndarray:
    """Compute log s of each frame, half the log of the mean square in the brain, (N,)."""
    energy = noise[..., mask].square().flatten(1).mean(1).double().cpu().numpy()
    return 0.5 * np.log(np.maximum(energy, FLOOR))
