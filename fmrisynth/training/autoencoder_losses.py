"""Compute the terms of the autoencoder's losses, each by a pure function in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "adaptive_weight",
    "explained_variance",
    "hinge_discriminator",
    "hinge_generator",
    "reconstruction_error",
]


def reconstruction_error(
    x_hat: Tensor, x: Tensor, mask: Tensor, kind: Literal["l1", "l2"]
) -> Tensor:
    """Average the absolute or squared error inside the brain.

    Parameters
    ----------
    x_hat, x : Tensor of shape (B, 1, X, Y, Z)
        Decoded and true volumes.
    mask : Tensor of shape (X, Y, Z), bool
        Brain.
    kind : {"l1", "l2"}
        Absolute or squared.
    """
    difference = (x_hat.float() - x.float()) * mask
    error = difference.abs() if kind == "l1" else difference.square()
    return error.sum() / (mask.sum() * x.shape[0] * x.shape[1])


def explained_variance(x_hat: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """Compute 1 − Σ(x − x̂)² / Σx² inside the brain; residuals have no mean to remove."""
    x = x.float() * mask
    return 1 - (x_hat.float() * mask - x).square().sum() / x.square().sum()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Compute ½ (E max(0, 1 − D(x)) + E max(0, 1 + D(x̂))), Lim & Ye 2017 (arXiv 1705.02894)."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    """Compute −E D(x̂), which is low where decoded volumes are scored as real."""
    return -fake.float().mean()


def adaptive_weight(
    reconstruction: Tensor,
    adversarial: Tensor,
    last_layer: Tensor,
    *,
    maximum: float,
    mean: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Tensor:
    """Compute λ = ‖∇ reconstruction‖ / ‖∇ adversarial‖ at the last layer (Esser 2021, Eq. 7).

    Parameters
    ----------
    reconstruction, adversarial : Tensor
        Terms whose graphs reach `last_layer`.
    last_layer : Tensor
        Weight of the decoder's last convolution.
    maximum : float
        Upper limit, against a vanishing adversarial gradient.
    mean : callable
        Averages a gradient over processes.

    Returns
    -------
    Tensor
        A number without gradient, in [0, `maximum`].
    """
    wanted = mean(torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0])
    against = mean(torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0])
    ratio = wanted.float().norm() / (against.float().norm() + 1e-6)
    return ratio.clamp(0, maximum).detach()
