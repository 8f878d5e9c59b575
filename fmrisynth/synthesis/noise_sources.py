"""Take out of noise what places have in common."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["out_of_step"]


def out_of_step(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each latent value of (N, C, x, y, z) noise in time, by a random number of frames.

    Spectra and variances stay; what values at different places have in common goes.
    """
    length = len(noise)
    flat = noise.flatten(1)
    shifts = torch.randint(length, (flat.shape[1],), generator=generator).to(noise.device)
    rows = (torch.arange(length, device=noise.device)[:, None] + shifts) % length
    return flat.gather(0, rows).view_as(noise)
