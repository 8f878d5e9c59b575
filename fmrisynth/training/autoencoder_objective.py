"""Compute the autoencoder's objective: the terms of its loss in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fmrisynth.config.autoencoder import AutoencoderTraining
from fmrisynth.model.autoencoder.discriminator import PatchDiscriminator
from fmrisynth.model.autoencoder.quantizer import Quantized
from fmrisynth.model.autoencoder.vqgan import VQGAN, latent_mask
from fmrisynth.training.autoencoder_losses import (
    adaptive_weight,
    explained_variance,
    hinge_generator,
    reconstruction_error,
)

__all__ = ["AutoencoderObjective"]


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without accumulating any in it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


class AutoencoderObjective(nn.Module):
    """Compute the autoencoder's forward pass with the terms of its loss.

    `forward` computes the terms, so that the gradients behind the adaptive weight are
    computed inside of the wrapper that Fabric puts around a module; outside of it they
    would count as a backward pass of their own.

    Parameters
    ----------
    net : VQGAN
        The autoencoder.
    training : AutoencoderTraining
        Weights of the terms.
    mask : Tensor of shape (X, Y, Z), bool
        Brain.
    mean : callable
        Averages a tensor over processes.
    """

    mask: Tensor
    inside: Tensor

    def __init__(
        self,
        net: VQGAN,
        training: AutoencoderTraining,
        mask: Tensor,
        mean: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.net, self.settings, self.mean = net, training, mean
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("inside", latent_mask(mask, net.config.factor), persistent=False)

    def forward(
        self, x: Tensor, quantised: Tensor, critic: PatchDiscriminator, progress: float
    ) -> tuple[dict[str, Tensor], Tensor, Quantized]:
        """Encode and decode a batch, and compute the terms of the loss.

        Parameters
        ----------
        x : Tensor of shape (B, 1, X, Y, Z)
            Volumes.
        quantised : Tensor of shape (B,), bool
            Samples whose latents are quantised before decoding.
        critic : PatchDiscriminator
            Scores the decoded volumes; its own weights get no gradient here.
        progress : float
            Share of the training that is over, in [0, 1].

        Returns
        -------
        terms : dict of str to Tensor
            ``loss`` is what is minimised; the others are its terms, and
            statistics that carry no gradient.
        x_hat : Tensor of shape (B, 1, X, Y, Z)
            Decoded volumes.
        code : Quantized
            Latents and codes.
        """
        x_hat, code = self.net(x, quantised, self.inside)
        reconstruction = reconstruction_error(x_hat, x, self.mask, self.settings.reconstruction)
        terms = {
            "loss": reconstruction + code.loss,
            "reconstruction": reconstruction,
            "explained_variance": explained_variance(x_hat.detach(), x, self.mask),
        }
        if self.net.config.quantizer == "kl":
            terms["kl"] = code.loss
        if self.net.config.has_codebook:
            terms |= {
                "codebook": code.loss,
                "perplexity": code.perplexity,
                "codebook_usage": code.usage,
            }
        if self.settings.adversarial.weight > 0:
            weight, term = self._adversarial(reconstruction, x_hat, critic, progress)
            terms |= {"adversarial": term, "adversarial_weight": weight}
            terms["loss"] = terms["loss"] + weight * term
        return terms, x_hat, code

    def _adversarial(
        self, reconstruction: Tensor, x_hat: Tensor, critic: PatchDiscriminator, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Compute the adversarial term and its adaptive weight; zeros before its start."""
        config = self.settings.adversarial
        factor = config.factor(progress)
        if factor == 0:
            return torch.zeros_like(reconstruction), torch.zeros_like(reconstruction)
        with _frozen(critic):
            term = hinge_generator(critic(x_hat * self.mask))
        weight = adaptive_weight(
            reconstruction,
            term,
            self.net.decoder.conv_out.weight,
            maximum=config.maximum,
            mean=self.mean,
        )
        return factor * weight, term
