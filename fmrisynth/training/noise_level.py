"""Fit the noise level: what the noise of a typical training run is, voxel by voxel."""

from __future__ import annotations

from fmrisynth.model.model import make_noise_level
from fmrisynth.model.noise_level import NoiseLevel
from fmrisynth.preprocess.run_maps import MapsOfRuns
from fmrisynth.training.prepare import TrainingData

__all__ = ["fit_noise_level"]


def fit_noise_level(data: TrainingData) -> NoiseLevel:
    """Take the median of the training runs' noise as the level 1.

    Parameters
    ----------
    data : TrainingData
        The runs, with the temporal standard deviation that drift and responses leave.
    """
    level = make_noise_level(data.config, data.grid)
    return level.fit(MapsOfRuns(data.runs, "noise_sd"), data.participants)
