"""Standardise latents: zero mean, and unit variance for the noise of a typical training run.

Legend: N frames, C latent channels, X Y Z latent grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["LatentSpace"]

MINIMUM_SCALE = 1e-4


class LatentSpace(nn.Module):
    """Standardise latents to zero mean and unit variance at each voxel and channel of the brain.

    Parameters
    ----------
    channels : int
        Latent channels C.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    """

    mask: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, channels: int, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.bool())
        self.register_buffer("shift", torch.zeros(channels, *mask.shape))
        self.register_buffer("scale", torch.ones(channels, *mask.shape))

    @property
    def channels(self) -> int:
        """Number of latent channels C."""
        return len(self.shift)

    @torch.no_grad()
    def set(self, mean: Tensor, deviation: Tensor) -> LatentSpace:
        """Set the mean and the standard deviation (C, X, Y, Z) that latents are standardised by."""
        # latent voxels at the brain's edge vary little; do not blow their noise up
        floor = 0.1 * deviation[:, self.mask].median(dim=1).values[:, None, None, None]
        self.shift.copy_(mean)
        self.scale.copy_(deviation.maximum(floor).clamp(min=MINIMUM_SCALE))
        return self

    def standardise(self, raw: Tensor) -> Tensor:
        """Standardise raw latents (..., C, X, Y, Z); the result is zero outside the brain."""
        return (raw - self.shift) / self.scale * self.mask

    def restore(self, latents: Tensor) -> Tensor:
        """Turn standardised latents into raw ones; the inverse of `standardise` in the brain."""
        return latents * self.mask * self.scale + self.shift

    def voxel_sd(self, variance: Tensor) -> Tensor:
        """Compute the standard deviation of what is decoded at a latent voxel, relative to typical.

        Parameters
        ----------
        variance : Tensor of shape (C, X, Y, Z)
            Of standardised latents.

        Returns
        -------
        Tensor of shape (X, Y, Z)
            Exact for a decoder whose channels are orthogonal; 1 outside the brain.
        """
        power = self.scale.square()
        ratio = (power * variance).sum(0) / power.sum(0)
        return torch.where(self.mask, ratio.sqrt(), 1)
