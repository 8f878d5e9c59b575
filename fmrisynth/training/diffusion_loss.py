"""Compute the diffusion loss: mean squared error inside the brain, in frame space.

A denoiser without a response model learns the responses slowly by the diffusion targets: their
noise has a hundred times the variance of what an event says. It first regresses on what they
average to, the fitted response of the window's participant (`Regression`).

Legend: B windows, T frames, C latent channels, X Y Z latent grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fmrisynth.model.denoiser.conditioning import Condition

__all__ = ["Regression", "diffusion_loss"]

COSINE_FLOOR = 0.05


@dataclass(frozen=True)
class Regression:
    """Targets without noise, for the first part of a training.

    Attributes
    ----------
    mean : Tensor of shape (B, T, C, X, Y, Z)
        Fitted response m, in units of the latents.
    share : Tensor of shape (B,)
        1 for regression, 0 for diffusion; between them, a mixture of the targets.
    """

    mean: Tensor
    share: Tensor


def diffusion_loss(
    denoiser: torch.nn.Module,
    prediction: str,
    latents: Tensor,
    noise: Tensor,
    theta: Tensor,
    condition: Condition,
    mask: Tensor,
    regression: Regression | None = None,
) -> Tensor:
    """Compute the MSE of v (Salimans & Ho 2022) or ε (Ho et al. 2020) at given angles.

    With noise of the data's covariance E[v | x, c] = −sin θ · m, which is the target of the
    regression. For ε it is (x − cos θ · m) / sin θ, exact where x says nothing of x_0, that
    is for θ near π/2; its error counts as an error of v.

    A loss in whitened coordinates does not learn the responses: the signal lives in the
    modes of large variance.

    Parameters
    ----------
    denoiser : torch.nn.Module
        Called with (noisy latents, theta, condition).
    prediction : str
        ``v`` or ``epsilon``.
    latents, noise : Tensor of shape (B, T, C, X, Y, Z)
        x_0 and ε.
    theta : Tensor of shape (B,)
        Angles.
    condition : Condition
        Of the B windows.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    regression : Regression or None
        Targets without noise.

    Returns
    -------
    Tensor of shape ()
        float32.
    """
    cos, sin = (f.view(-1, 1, 1, 1, 1, 1) for f in (theta.cos(), theta.sin()))
    noisy = cos * latents + sin * noise
    target = noise if prediction == "epsilon" else cos * noise - sin * latents
    weight: Tensor | float = 1.0
    if regression is not None:
        share = regression.share.view(-1, 1, 1, 1, 1, 1)
        if prediction == "epsilon":
            exact = (noisy - cos * regression.mean) / sin.clamp(min=COSINE_FLOOR)
            weight = 1 + share * (cos.clamp(min=COSINE_FLOOR) ** -2 - 1)
        else:
            exact = -sin * regression.mean
        target = torch.lerp(target, exact, share)
    error = denoiser(noisy, theta, condition).float() - target
    values = (weight * error.square()).sum(dim=(-1, -2, -3)).mean()
    return values / mask.sum()
