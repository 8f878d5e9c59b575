"""Draw white noise inside the brain, as the published method does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.noise.protocol import NoiseModel

__all__ = ["WhiteNoise"]


class WhiteNoise(NoiseModel):
    """Draw independent noise of unit variance; nothing is estimated and nothing filtered.

    Parameters
    ----------
    channels : int
        Latent channels C.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    """

    mask: Tensor

    def __init__(self, channels: int, mask: Tensor) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mask", mask.bool(), persistent=False)

    def fit(self, fields: Iterable[Tensor], removed: np.ndarray) -> Self:
        """Estimate nothing."""
        return self

    def sample_run(
        self, n_frames: int, t_r: float, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw (N, C, X, Y, Z) float32.

        Ignores `t_r` and `participant_seed`: white noise has neither a course in
        time nor spatial patterns in which participants could differ.
        """
        return self.sample_window(n_frames, generator, participant_seed)

    def sample_window(
        self, n_frames: int, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw (N, C, X, Y, Z) float32."""
        white = torch.randn(n_frames, self.channels, *self.mask.shape, generator=generator)
        return white.to(self.mask.device) * self.mask
