"""Draw the windows of the training runs that the denoiser learns from.

Legend: N frames of a run, T frames of a window, C latent channels, X Y Z latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.denoiser.conditioning import Condition, RunCondition
from fmrisynth.model.latent_space import LatentSpace

__all__ = ["Windows"]


class Windows:
    """Draw windows of the training runs at random.

    Parameters
    ----------
    latents : sequence of ndarray of shape (N, C, X, Y, Z)
        Raw latents of each run, memory-mapped; no run is shorter than a window.
    conditions : sequence of RunCondition
        One per run.
    latent_space : LatentSpace
        Standardisation.
    length : int
        Frames of a window.
    onset_share : float
        Share of windows that start at an event's onset.
    """

    def __init__(
        self,
        latents: Sequence[np.ndarray],
        conditions: Sequence[RunCondition],
        latent_space: LatentSpace,
        length: int,
        onset_share: float,
    ) -> None:
        self.latents, self.conditions, self.latent_space = latents, conditions, latent_space
        self.length, self.onset_share = length, onset_share

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Condition]:
        """Draw the standardised latents (1, T, C, X, Y, Z) of one window, and its condition."""
        uniform = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        run = int(uniform[0] * len(self.latents))
        condition, last = self.conditions[run], len(self.latents[run]) - self.length
        start = int(uniform[1] * (last + 1))
        if uniform[2] < self.onset_share and len(condition.onsets):
            start = min(int(condition.onsets[int(uniform[1] * len(condition.onsets))]), last)
        raw = np.asarray(self.latents[run][start : start + self.length], np.float32)
        latents = self.latent_space.standardise(torch.from_numpy(raw))
        return latents[None], condition.window(start, self.length)
