"""Compute the diffusion loss: the mean squared error of the prediction inside the brain.

Legend: B windows, T frames, C latent channels, X Y Z latent grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmrisynth.model.denoiser.conditioning import Condition

__all__ = ["diffusion_loss"]


def diffusion_loss(
    denoiser: torch.nn.Module,
    prediction: str,
    latents: Tensor,
    noise: Tensor,
    theta: Tensor,
    condition: Condition,
    mask: Tensor,
) -> Tensor:
    """Compute the MSE of v (Salimans & Ho 2022) or ε (Ho et al. 2020) at given angles.

    It is computed in the space of frames. A loss in coordinates that whiten the noise does
    not learn the evoked maps, whose signal lies in the modes of large variance.

    Parameters
    ----------
    denoiser : torch.nn.Module
        Called with (noisy latents, theta, condition).
    prediction : str
        Target, ``v`` or ``epsilon``.
    latents, noise : Tensor of shape (B, T, C, X, Y, Z)
        Latents x_0 and noise ε.
    theta : Tensor of shape (B,)
        Angles.
    condition : Condition
        Condition of the B windows.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.

    Returns
    -------
    Tensor of shape ()
        float32.
    """
    cos, sin = (f.view(-1, 1, 1, 1, 1, 1) for f in (theta.cos(), theta.sin()))
    noisy = cos * latents + sin * noise
    target = noise if prediction == "epsilon" else cos * noise - sin * latents
    error = denoiser(noisy, theta, condition).float() - target
    values = error.square().sum(dim=(-1, -2, -3)).mean()
    return values / mask.sum()
