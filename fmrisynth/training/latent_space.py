"""Fit the latent space: unit variance for the noise of a typical run.

Legend: N frames, C channels, x y z latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.preprocess.carrier import least_squares
from fmrisynth.runtime.progress import track
from fmrisynth.training.prepare import TrainingData

__all__ = ["fit_latent_space"]


def fit_latent_space(
    latents: Sequence[np.ndarray], levels: Sequence[Tensor], data: TrainingData
) -> LatentSpace:
    """Standardise latents by what each run's GLM leaves, divided by the run's noise level.

    Parameters
    ----------
    latents : sequence of ndarray of shape (N, C, x, y, z)
        Raw latents of each run.
    levels : sequence of Tensor of shape (x, y, z)
        Noise level of each run.
    data : TrainingData
        Designs of the runs.
    """
    mask = data.latent_mask
    space = LatentSpace(data.config.autoencoder.latent_channels, mask)
    shape = latents[0].shape[1:]
    total, squares, count, freedom = np.zeros(shape), np.zeros(shape), 0, 0
    runs = zip(latents, levels, data.conditions, strict=True)
    for raw, level, condition in track(runs, desc="Latent space", total=len(latents), unit="run"):
        z = np.asarray(raw, np.float32)
        total, count = total + z.sum(0, dtype=np.float64), count + len(z)
        flat = z.reshape(len(z), -1)
        rest, used = least_squares(condition.design.evoked.reshape(len(z), -1), flat)
        energy = np.square(rest).sum(0, dtype=np.float64).reshape(shape)
        squares += energy / np.square(level.numpy())
        freedom += len(z) - used
    mean = total / count
    squares = squares - count * np.square(mean)  # whole volumes keep their mean
    deviation = np.sqrt(np.maximum(squares, 0) / max(freedom, 1))
    return space.set(torch.from_numpy(mean).float(), torch.from_numpy(deviation).float())
