"""Draw latents from Gaussians, as variational autoencoders do, in place of a codebook.

Legend: B batch, C channels, x y z latent voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fmrisynth.model.autoencoder.quantizer import Quantized

__all__ = ["GaussianPosterior"]

LOG_VARIANCE_LIMITS = -30.0, 20.0  # of latent diffusion (Rombach 2022), against overflow


class GaussianPosterior(nn.Module):
    """Draw each latent value from its own Gaussian, and penalise how far that is from N(0, 1).

    Parameters
    ----------
    weight : float
        Weight of the Kullback-Leibler divergence, which is summed over the latents of a volume
        (Kingma & Welling 2014, appendix B; Rombach 2022).
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, mean: Tensor, log_variance: Tensor, inside: Tensor | None) -> Quantized:
        """Draw latents and compute the penalty.

        Parameters
        ----------
        mean, log_variance : Tensor of shape (B, C, x, y, z)
            Of the Gaussians.
        inside : Tensor of shape (x, y, z), bool, or None
            Latent voxels that count in the penalty.

        Returns
        -------
        Quantized
            `z` is the mean, and `z_q` what is drawn; there are no codes.
        """
        mean, log_variance = mean.float(), log_variance.float().clamp(*LOG_VARIANCE_LIMITS)
        drawn = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        if inside is not None:
            divergence = divergence * inside
        nothing = Quantized.without_codebook(mean)
        return nothing._replace(z_q=drawn, loss=self.weight * divergence.sum() / len(mean))
