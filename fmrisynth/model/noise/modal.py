"""Draw noise with the networks of the data: large-scale modes, and stationary noise beside them.

Stationary noise (`fmrisynth.model.noise.stationary`) has one covariance for each offset
between two voxels, wherever they lie; it holds no networks of distant regions that
fluctuate together. The modes are spatial patterns, each with its own variance and
autocovariance in time. The patterns are fitted to one half of the runs, and variance and
autocovariance are estimated in the other half, since the sample variance of the runs that
a pattern was fitted to is too large.

Participants differ in how their modes fluctuate together. Each synthetic participant has
networks of its own, the same in all of its runs: with W the covariance of the modes'
courses, each scaled to unit variance,

    W(participant) = I + Σ_q g_q · D_q,  g_q ~ N(0, 1)

where D_q are the principal components of how W differs between the training participants,
scaled to their reliability (`fmrisynth.model.individual_differences`). No participant's own
networks are copied.

Legend: K modes, N frames, C channels, X Y Z box, P voxels of the brain, D features,
Q components.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.individual_differences import (
    draw_difference,
    individual_components,
    split_halves,
)
from fmrisynth.model.noise.autocovariance import NO_DRIFT, factors_in_time, fit_autocovariance
from fmrisynth.model.noise.protocol import NoiseModel, remove_mean_and_drift
from fmrisynth.model.noise.stationary import StationaryNoise

__all__ = ["ModalNoise"]

OVERSAMPLING, POWER_ITERATIONS = 16, 4  # of the randomised decomposition
MINIMUM_REMAINDER = 0.05  # share of a voxel's variance that is left to the stationary part
LEVELLING_FRAMES, LEVELLING_ROUNDS = 256, 3  # noise drawn to bring each voxel to its variance
MODES_PER_GROUP = 8  # neighbours in the order of variance, whose reliability is estimated together
MINIMUM_EIGENVALUE = 0.1  # of a participant's W
TRIAL_PARTICIPANTS, MAXIMUM_STRETCH = 64, 2.0  # to make up for what that minimum removes


class ModalNoise(NoiseModel):
    """Draw noise of unit variance with the modes of the latents and a stationary remainder.

    Parameters
    ----------
    channels : int
        Channels C of a field.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    modes : int
        Largest number of modes K.
    individual : int
        Largest number Q of components of the differences between participants; 0
        gives all participants the same networks.
    order : int
        Order of the autoregressions.
    frames : int
        Frames of a training window.
    high_pass : float or None
        Highest drift frequency that whole runs are drawn without, Hz; None leaves
        mean and drift in.
    """

    mask: Tensor
    modes: Tensor
    autocovariance: Tensor
    window_autocovariance: Tensor
    differences: Tensor
    remainder_sd: Tensor

    def __init__(
        self,
        channels: int,
        mask: Tensor,
        modes: int,
        individual: int = 32,
        *,
        order: int = 8,
        frames: int = 16,
        high_pass: float | None = None,
    ) -> None:
        super().__init__()
        self.order, self.high_pass, voxels = order, high_pass, int(mask.sum())
        count = min(modes, channels * voxels)
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("modes", torch.zeros(count, channels, voxels))
        self.register_buffer("autocovariance", torch.zeros(count, order + 1))
        self.register_buffer("window_autocovariance", torch.zeros(count, max(2, frames)))
        self.register_buffer("differences", torch.zeros(individual, count, count))
        self.register_buffer("remainder_sd", torch.ones(channels, voxels))
        # without a filter of its own: drift is removed from the sum
        self.remainder = StationaryNoise(channels, mask, order=order, frames=frames)

    @torch.no_grad()
    def fit(self, fields: Iterable[Tensor], removed: np.ndarray) -> Self:
        """Estimate modes, variances, autocovariances and remainder; see `NoiseModel.fit`."""
        runs = [field[..., self.mask].flatten(1).float() for field in fields]  # N C·P
        half = max(1, len(runs) // 2)
        second = runs[half:] or runs
        axes = _principal_axes(torch.cat(runs[:half]), len(self.modes))  # C·P K
        courses = [run @ axes for run in second]  # N K
        rest = [run - course @ axes.T for run, course in zip(second, courses, strict=True)]
        self.modes.copy_(axes.T.reshape(self.modes.shape))
        self.autocovariance.copy_(_autocovariances(courses, self.order, removed))
        self.window_autocovariance.copy_(
            _autocovariances(courses, self.window_autocovariance.shape[1] - 1, NO_DRIFT)
        )
        power = torch.cat(courses).square().mean(0)
        share = torch.einsum("kcp,k->cp", self.modes.square(), power)
        deviation = torch.cat(rest).square().mean(0).sqrt().clamp(min=1e-6)
        self.remainder.fit(
            (self._field((run / deviation).unflatten(1, self.remainder_sd.shape)) for run in rest),
            removed,
        )
        # whatever share the modes have of a voxel, its total variance is one
        self._level((1 - share).clamp(min=MINIMUM_REMAINDER))
        return self

    def _level(self, variance: Tensor) -> None:
        """Scale the remainder, free of the modes, to a variance (C, P) at each voxel."""
        self.remainder_sd.copy_(variance.sqrt())
        for number in range(LEVELLING_ROUNDS):
            generator = torch.Generator().manual_seed(number)
            drawn = self._remainder(self.remainder.sample_window(LEVELLING_FRAMES, generator))
            self.remainder_sd *= (variance / drawn.square().mean(0).clamp(min=1e-6)).sqrt()

    def _remainder(self, field: Tensor) -> Tensor:
        """Scale stationary noise and project the modes out of it, (N, C, P).

        Its part in the modes would add to their variance, and make their correlated
        courses more independent than they are.
        """
        rest = (field[..., self.mask] * self.remainder_sd).flatten(1)
        axes = self.modes.flatten(1)  # K C·P
        return (rest - rest @ axes.T @ axes).unflatten(1, self.remainder_sd.shape)

    @torch.no_grad()
    def fit_individual_differences(
        self, fields: Iterable[Tensor], participants: Sequence[str]
    ) -> Self:
        """Estimate how the networks differ between participants; see `NoiseModel`."""
        if not len(self.differences):
            return self
        axes = self.modes.flatten(1).T  # C·P K
        runs: dict[str, list[Tensor]] = {}
        for field, participant in zip(fields, participants, strict=True):
            courses = field[..., self.mask].flatten(1).float() @ axes  # N K
            runs.setdefault(participant, []).append(courses)
        self.differences.copy_(_differences(list(runs.values()), len(self.differences)))
        self._stretch()
        return self

    def _stretch(self) -> None:
        """Scale the differences up to the variance that the minimum eigenvalue of W removes."""
        target, stretch = float(self.differences.square().sum()), 1.0
        original, unit = self.differences.clone(), torch.eye(len(self.modes)).to(self.modes)
        for _ in range(LEVELLING_ROUNDS if target > 0 else 0):
            roots = (self._root(seed) for seed in range(TRIAL_PARTICIPANTS))
            drawn = sum(float((root @ root - unit).square().sum()) for root in roots)
            stretch *= (target * TRIAL_PARTICIPANTS / drawn) ** 0.5
            self.differences.copy_(original * min(stretch, MAXIMUM_STRETCH))

    def sample_run(
        self, n_frames: int, t_r: float, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw a run (N, C, X, Y, Z) float32, without mean and drift; see `NoiseModel`."""
        rest = self._remainder(self.remainder.sample_run(n_frames, t_r, generator))
        noise = self._draw(rest, generator, self.autocovariance, participant_seed)
        return remove_mean_and_drift(noise, t_r, self.high_pass)

    def sample_window(
        self, n_frames: int, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw a window (N, C, X, Y, Z) float32 of unit variance; see `NoiseModel`."""
        rest = self._remainder(self.remainder.sample_window(n_frames, generator))
        return self._draw(rest, generator, self.window_autocovariance, participant_seed)

    def _draw(
        self, rest: Tensor, generator: torch.Generator, autocovariance: Tensor, seed: int
    ) -> Tensor:
        """Add the modes of one participant to the remainder (N, C, P)."""
        white = torch.randn(len(self.modes), len(rest), 1, generator=generator)
        courses = (factors_in_time(autocovariance, len(rest)) @ white)[..., 0]  # K N
        courses = self._networks(seed) @ courses.to(rest)
        return self._field(rest + torch.einsum("kn,kcp->ncp", courses, self.modes))

    def _networks(self, seed: int) -> Tensor:
        """Mix the modes' courses as in one participant, (K, K): the root of W, in their scales."""
        scale = self.autocovariance[:, 0].clamp(min=1e-8).sqrt()
        return scale[:, None] * self._root(seed) / scale

    def _root(self, seed: int) -> Tensor:
        """Take the root of one participant's W, with a trace of K, (K, K)."""
        difference = draw_difference(self.differences, seed)
        values, vectors = torch.linalg.eigh(torch.eye(len(difference)).to(difference) + difference)
        values = values.clamp(min=MINIMUM_EIGENVALUE)
        return vectors @ ((values / values.mean()).sqrt()[:, None] * vectors.T)

    def _field(self, values: Tensor) -> Tensor:
        """Put values (N, C, P) into the box (N, C, X, Y, Z), zero outside the brain."""
        field = values.new_zeros(*values.shape[:2], *self.mask.shape)
        field[..., self.mask] = values
        return field


def _principal_axes(rows: Tensor, count: int) -> Tensor:
    """Compute the first principal axes of rows (N, D), orthonormal (D, count), repeatably.

    Where there are fewer rows than axes, the missing axes are zero.
    """
    available = min(count, *rows.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the randomised range finder
        width = min(available + OVERSAMPLING, *rows.shape)
        axes = torch.svd_lowrank(rows, q=width, niter=POWER_ITERATIONS)[2]
    padded = rows.new_zeros(rows.shape[1], count)
    padded[:, :available] = axes[:, :available]
    return padded


def _differences(participants: Sequence[Sequence[Tensor]], count: int) -> Tensor:
    """Estimate components of how the modes' covariance differs between participants.

    Parameters
    ----------
    participants : sequence of sequence of Tensor of shape (N, K)
        Courses of each run of each participant.
    count : int
        Largest number of components Q.

    Returns
    -------
    Tensor of shape (count, K, K)
        Components of `individual_components`.
    """
    every = [course for runs in participants for course in runs]
    scale = torch.cat(every).square().mean(0).sqrt().clamp(min=1e-6)
    halves = []
    for runs in participants:
        parts = [run / scale for run in runs]
        halves.append(split_halves(parts if len(parts) > 1 else parts[0].chunk(2)))
    first, second = (torch.stack([_covariance(half[which]) for half in halves]) for which in (0, 1))
    n_modes = len(scale)
    rank = torch.arange(n_modes) // MODES_PER_GROUP
    return individual_components(first, second, rank[:, None] * n_modes + rank, count)


def _covariance(courses: Sequence[Tensor]) -> Tensor:
    """Compute the covariance of scaled courses (N, K), (K, K) with a trace of K.

    The trace is the overall amplitude, which is no property of the networks.
    """
    total = torch.stack([course.T @ course for course in courses]).sum(0)
    return total * (len(total) / total.trace().clamp(min=1e-12))


def _autocovariances(courses: Sequence[Tensor], order: int, removed: np.ndarray) -> Tensor:
    """Estimate autocovariances (K, order + 1) of courses (N, K), each positive definite."""
    totals = torch.zeros(courses[0].shape[1], order + 1, dtype=torch.float64)
    counts = torch.zeros(order + 1, dtype=torch.float64)
    for course in courses:
        values = course.double().cpu()
        for lag in range(min(order + 1, len(values))):
            totals[:, lag] += (values[: len(values) - lag] * values[lag:]).sum(0)
            counts[lag] += len(values) - lag
    lags = totals / counts.clamp(min=1)
    return (fit_autocovariance(lags, removed) * lags[:, :1].clamp(min=1e-8)).float()
