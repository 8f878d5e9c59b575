"""Compute the guided velocity that a sampler follows, nothing of it twice.

Legend: B windows, T frames, C latent channels, X Y Z latent grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmrisynth.model.denoiser.backbone import Encoded
from fmrisynth.model.denoiser.conditioning import Condition, collate
from fmrisynth.model.denoiser.denoiser import Denoiser

__all__ = ["GuidedVelocity"]


class GuidedVelocity:
    """Compute the velocity of some windows under their condition, at any angle.

    The encoded condition does not change over the denoising steps and is computed once.

    A scale w other than 1 is that of classifier-free guidance (Ho & Salimans 2022, eq. 6
    with their w being w − 1 here): the windows with and without their condition go through
    the network in one batch. A response model knows the amplitude of responses as a number
    and needs no guidance.

    Parameters
    ----------
    denoiser : Denoiser
        The network.
    condition : Condition
        Of B windows.
    guidance : float
        Scale w; 1 is the condition as learned.
    rescale : float
        Share φ of the guided output that is brought back to the standard
        deviation of the unguided one, window by window (Lin et al. 2024, eq.
        14–16): guidance beyond 1 otherwise raises the contrast.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        condition: Condition,
        guidance: float,
        rescale: float = 0.0,
    ) -> None:
        self.denoiser, self.guidance, self.rescale = denoiser, guidance, rescale
        self.twice = guidance != 1
        both = collate([condition, condition.unconditional()]) if self.twice else condition
        # a backbone without a say at any angle is not asked
        self.silent = not denoiser.gate.any()
        self.encoded: Encoded = denoiser.encode(both)

    def __call__(self, x: Tensor, theta: float) -> Tensor:
        """Return v (B, T, C, X, Y, Z) of the windows x at an angle."""
        angles = torch.full((len(x),), theta, device=x.device)
        modes = self.denoiser.gated_modes(x, angles, self.encoded)
        if self.silent:
            return modes
        repeats = 2 if self.twice else 1
        out = self.denoiser.predict(
            torch.cat([x] * repeats), torch.cat([angles] * repeats), self.encoded
        )
        if self.twice:
            given, withheld = out.chunk(2)
            guided = withheld + self.guidance * (given - withheld)
        else:
            given = guided = out
        if self.rescale and guided is not given:
            guided = self._rescaled(guided, given)
        return self.denoiser.as_velocity(x, angles, guided) + modes

    def _rescaled(self, guided: Tensor, given: Tensor) -> Tensor:
        """Bring the guided output back to the standard deviation of the unguided one."""
        ratio = self._root_mean_square(given) / self._root_mean_square(guided).clamp(min=1e-12)
        return guided * (1 + self.rescale * (ratio - 1))

    def _root_mean_square(self, out: Tensor) -> Tensor:
        """Compute the root mean square over a window's brain, (B, 1, 1, 1, 1, 1)."""
        total = out.square().sum(dim=(1, 2, 3, 4, 5), keepdim=True)
        return (total / (out.shape[1] * out.shape[2] * self.denoiser.mask.sum())).sqrt()
