"""Serve the training runs as standardised latents, whole or in windows.

Legend: N frames of a run, T frames of a window, C latent channels, x y z latent grid, P latent
voxels of the brain, K regressors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.denoiser.conditioning import RunCondition
from fmrisynth.model.latent_space import LatentSpace

__all__ = ["LatentRuns", "Windows"]


@dataclass(frozen=True)
class LatentRuns:
    """Hold the latents of some runs with all that is known of each.

    Attributes
    ----------
    latents : sequence of ndarray of shape (N, C, x, y, z)
        Raw latents, memory-mapped.
    conditions : sequence of RunCondition
        Events and anatomy.
    levels : sequence of Tensor of shape (x, y, z)
        Noise levels.
    participants : sequence of str
        Participant label of each run.
    latent_space : LatentSpace
        Standardisation, on the CPU.
    responses : mapping of str to ndarray of shape (K, C·P)
        Participants' own responses; empty where nothing is known of them.
    drawn : mapping of str to ndarray of shape (K, C·P)
        Draws of them from what the runs say of participants who validate, which leave none of a
        response in the noise; empty without a response model.
    removed : bool
        Whether `noise` is free of the responses: a response model knows them. False for a
        denoiser that has to learn them.
    intensities : sequence of Tensor of shape (N,) or None
        Intensity of the noise in each frame of a run, which is divided out of it.
    """

    latents: Sequence[np.ndarray]
    conditions: Sequence[RunCondition]
    levels: Sequence[Tensor]
    participants: Sequence[str]
    latent_space: LatentSpace
    responses: Mapping[str, np.ndarray] = field(default_factory=dict)
    drawn: Mapping[str, np.ndarray] = field(default_factory=dict)
    removed: bool = True
    intensities: Sequence[Tensor] | None = None

    def __len__(self) -> int:
        """Count the runs."""
        return len(self.latents)

    @property
    def mask(self) -> Tensor:
        """Latent voxels that hold brain, (x, y, z) bool."""
        return self.latent_space.mask

    @property
    def n_values(self) -> int:
        """Latent values of a frame inside the brain, C·P."""
        return self.latent_space.channels * int(self.mask.sum())

    def regressors(self, index: int) -> np.ndarray:
        """Regressors of a run without mean and drift, (N, K) float32."""
        evoked = self.conditions[index].design.evoked
        return evoked.reshape(len(evoked), -1)

    def standardised(self, index: int) -> np.ndarray:
        """Standardise the latents of a run, (N, C·P) float32."""
        z = self._standardise(self.latents[index])
        return z[..., self.mask].flatten(1).numpy()

    def noise(self, index: int, start: int = 0, length: int | None = None) -> Tensor:
        """Take response (if it is removed), level and intensity out of a run's latents.

        Returns
        -------
        Tensor of shape (T, C, x, y, z)
            float32.
        """
        stop = len(self.latents[index]) if length is None else start + length
        z = self._standardise(self.latents[index][start:stop])
        own = self.responses.get(self.participants[index])
        if self.removed and own is not None:
            mean = torch.from_numpy(self.regressors(index)[start:stop] @ own)
            z[..., self.mask] -= mean.view(len(z), self.latent_space.channels, -1)
        return z / self.scale(index, start, len(z))

    def scale(self, index: int, start: int, length: int) -> Tensor:
        """Return level times intensity of a window, (T, 1, x, y, z)."""
        level = self.levels[index].expand(length, 1, -1, -1, -1)
        if self.intensities is None:
            return level
        intensity = self.intensities[index][start : start + length]
        return level * intensity[:, None, None, None, None]

    def response(self, index: int, start: int, length: int) -> Tensor:
        """Return the fitted response of a window in units of the noise, (T, C, x, y, z)."""
        own = self.responses[self.participants[index]]
        field = torch.zeros(length, self.latent_space.channels, *self.mask.shape)
        mean = torch.from_numpy(self.regressors(index)[start : start + length] @ own)
        field[..., self.mask] = mean.view(length, self.latent_space.channels, -1)
        return field / self.scale(index, start, length)

    def _standardise(self, raw: np.ndarray) -> Tensor:
        return self.latent_space.standardise(torch.from_numpy(np.asarray(raw, np.float32)))

    def without_responses(self) -> LatentRuns:
        """Return the runs such that their noise has nothing of a response, if one is modelled."""
        return replace(self, responses=self.drawn) if self.drawn else self

    def of(self, participants: Sequence[str]) -> LatentRuns:
        """Return the runs of some participants."""
        chosen = [i for i, label in enumerate(self.participants) if label in participants]
        return LatentRuns(
            [self.latents[i] for i in chosen],
            [self.conditions[i] for i in chosen],
            [self.levels[i] for i in chosen],
            [self.participants[i] for i in chosen],
            self.latent_space,
            self.responses,
            self.drawn,
            self.removed,
            None if self.intensities is None else [self.intensities[i] for i in chosen],
        )


class Windows:
    """Draw windows of runs at random.

    Parameters
    ----------
    runs : LatentRuns
        The runs; none is shorter than a window.
    length : int
        Frames T of a window.
    onset_share : float
        Share of windows that start at an event's onset.
    """

    def __init__(self, runs: LatentRuns, length: int, onset_share: float) -> None:
        self.runs, self.length, self.onset_share = runs, length, onset_share

    def choose(self, generator: torch.Generator, run: int | None = None) -> tuple[int, int]:
        """Draw the run, unless it is given, and the first frame of a window."""
        uniform = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        if run is None:
            run = int(uniform[0] * len(self.runs))
        condition, last = self.runs.conditions[run], len(self.runs.latents[run]) - self.length
        start = int(uniform[1] * (last + 1))
        if uniform[2] < self.onset_share and len(condition.onsets):
            start = min(int(condition.onsets[int(uniform[1] * len(condition.onsets))]), last)
        return run, start
