"""The diffusion loss: mean squared error of the prediction, inside the brain, in frame space."""

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
    """MSE of v (Salimans & Ho 2022) or ε (Ho et al. 2020) at given angles.

    A loss in whitened coordinates does not learn the evoked maps: the signal
    lives in the modes of large variance.

    Parameters
    ----------
    denoiser : torch.nn.Module
        Called with (noisy latents, theta, condition).
    prediction : str
        ``v`` or ``epsilon``.
    latents, noise : torch.Tensor
        (B, T, C, X, Y, Z), x_0 and ε.
    theta : torch.Tensor
        (B,).
    condition : Condition
        Of the B windows.
    mask : torch.Tensor
        (X, Y, Z) bool.

    Returns
    -------
    torch.Tensor
        Scalar, float32.
    """
    cos, sin = (f.view(-1, 1, 1, 1, 1, 1) for f in (theta.cos(), theta.sin()))
    noisy = cos * latents + sin * noise
    target = noise if prediction == "epsilon" else cos * noise - sin * latents
    error = denoiser(noisy, theta, condition).float() - target
    values = error.square().sum(dim=(-1, -2, -3)).mean()
    return values / mask.sum()
