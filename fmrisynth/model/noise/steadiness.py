"""Measure what dividing noise by the intensities of its frames leaves of each mode.

A mode that is loudest in the frames that are loud as a whole, as what motion makes is, loses more
than others do. Noise that is drawn apart from its intensities has to lose as much before it is
compared with what was divided, and to get it back before it is multiplied.

Legend: N frames, K modes, D latent values of a frame inside the brain.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["measure_steadiness", "scale_modes"]

LIMITS = 0.1, 2.0  # what can be left of a mode's variance; quiet modes gain
LEAST = 1e-12


def measure_steadiness(runs: Iterable[tuple[Tensor, Tensor]], mask: Tensor, axes: Tensor) -> Tensor:
    """Compare the variance of runs divided by their intensities with that before.

    Parameters
    ----------
    runs : iterable of (Tensor of shape (N, C, X, Y, Z), Tensor of shape (N,))
        Noise, and the intensities of its frames.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    axes : Tensor of shape (K, D)
        The modes, orthonormal.

    Returns
    -------
    Tensor of shape (K + 1,)
        Ratio along each mode, and of what the modes leave; 1 without runs.
    """
    power = torch.zeros(2, len(axes) + 1, dtype=torch.float64)
    for noise, intensity in runs:
        flat = noise[..., mask].flatten(1).to(axes)
        squares = (flat @ axes.T).square()
        rest = flat.square().sum(1, keepdim=True) - squares.sum(1, keepdim=True)
        squares = torch.cat([squares, rest], dim=1).cpu()
        power[0] += squares.sum(0)
        power[1] += (squares / intensity[:, None].square()).sum(0)
    ratio = torch.where(power[0] > LEAST, power[1] / power[0].clamp(min=LEAST), 1.0)
    return ratio.clamp(*LIMITS).to(axes)


def scale_modes(flat: Tensor, axes: Tensor, factors: Tensor) -> Tensor:
    """Multiply noise (N, D) by factors (K + 1,) along the modes (K, D), and what they leave."""
    along, rest = factors[:-1], factors[-1]
    return rest * flat + (flat @ axes.T * (along - rest)) @ axes
