"""White noise, masked to the brain: the published form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["WhiteNoise"]


class WhiteNoise(nn.Module):
    """Independent noise of unit variance inside the brain, the form of the published method."""

    mask: Tensor

    def __init__(self, channels: int, mask: Tensor) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mask", mask.bool(), persistent=False)

    def window(self, n_frames: int, generator: torch.Generator, person: int = 0) -> Tensor:
        """Draw (N, C, X, Y, Z) float32 for training; it is as `sample`."""
        return self.sample(n_frames, generator, person)

    def sample(self, n_frames: int, generator: torch.Generator, person: int = 0) -> Tensor:
        """Draw (N, C, X, Y, Z) float32; everybody's is alike."""
        white = torch.randn(n_frames, self.channels, *self.mask.shape, generator=generator)
        return white.to(self.mask.device) * self.mask
