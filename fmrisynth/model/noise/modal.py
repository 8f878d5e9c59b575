"""Noise with the networks of the data: a few large-scale modes, and stationary noise for the rest.

Stationary noise (`fmrisynth.model.noise.stationary`) has one covariance for each offset between
two voxels, wherever they lie; distant regions that fluctuate together are not in
it. Modes are: spatial patterns, each with a variance and a colour of its own
over time. They are found in one half of the runs, and their variance and colour
measured in the other, since the sample variance of the runs that a pattern was
fitted to is too large.

People differ in how their modes fluctuate together. Each synthetic person has
networks of its own, the same in all of its runs: with W the covariance of the
modes' courses, each scaled to unit variance,

    W(person) = I + Σ_q g_q · D_q,  g_q ~ N(0, 1)

where D_q are the principal components of how the training people's W differ,
cut to the share of it that is found again in other runs of the same person.
Nobody's own networks are copied.

Legend: K modes, N frames, C channels, P voxels of the brain, Q components.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fmrisynth.model.individual_differences import between_people, difference, in_two
from fmrisynth.model.noise.autocovariance import NO_DRIFT, colour, factors_in_time
from fmrisynth.model.noise.stationary import ColouredNoise

__all__ = ["ModalNoise"]

OVERSAMPLING, POWER_ITERATIONS = 16, 4  # of the randomised decomposition
LEAST_REMAINDER = 0.05  # share of a voxel's variance that is no mode's
LEVELLING_FRAMES, LEVELLING_ROUNDS = 256, 3  # noise drawn to bring each voxel to its variance
MODES_TOGETHER = 8  # neighbours in the order of variance whose reliability is told together
LEAST_PERSONAL = 0.1  # least eigenvalue of a person's W
TRIED_PEOPLE, MOST_STRETCH = 64, 2.0  # to make up for what that least value takes


class ModalNoise(nn.Module):
    """Noise of unit variance with the modes of the data and the colour of what they leave.

    Parameters
    ----------
    channels : int
        Channels C of a field.
    mask : torch.Tensor
        (X, Y, Z) bool, the brain.
    modes : int
        Modes K, at most.
    people : int
        Components Q of what distinguishes people, at most; 0 makes all alike.
    order : int
        Order of the autoregressions.
    frames : int
        Frames of a window of training.
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
        people: int = 32,
        *,
        order: int = 8,
        frames: int = 16,
    ) -> None:
        super().__init__()
        self.order, voxels = order, int(mask.sum())
        count = min(modes, channels * voxels)
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("modes", torch.zeros(count, channels, voxels))
        self.register_buffer("autocovariance", torch.zeros(count, order + 1))
        self.register_buffer("window_autocovariance", torch.zeros(count, max(2, frames)))
        self.register_buffer("differences", torch.zeros(people, count, count))
        self.register_buffer("remainder_sd", torch.ones(channels, voxels))
        self.remainder = ColouredNoise(channels, mask, order=order, frames=frames)

    @torch.no_grad()
    def fit(self, fields: Iterable[Tensor], basis: np.ndarray) -> ModalNoise:
        """Estimate modes, variances and colours from standardised fields.

        Parameters
        ----------
        fields : iterable of torch.Tensor
            One (N, C, X, Y, Z) per run, ordered by participant, zero mean and
            unit variance at each voxel and channel over the training set.
        basis : numpy.ndarray
            (N, D) orthonormal: mean and drift, which were taken out of the
            fields, for a run of typical length. The noise has them, see
            `fmrisynth.model.noise.autocovariance.unfiltered`.

        Returns
        -------
        ModalNoise
            Itself.
        """
        runs = [field[..., self.mask].flatten(1).float() for field in fields]  # N C·P
        half = max(1, len(runs) // 2)
        second = runs[half:] or runs
        axes = _principal_axes(torch.cat(runs[:half]), len(self.modes))  # C·P K
        courses = [run @ axes for run in second]  # N K
        rest = [run - course @ axes.T for run, course in zip(second, courses, strict=True)]
        self.modes.copy_(axes.T.reshape(self.modes.shape))
        self.autocovariance.copy_(_autocovariances(courses, self.order, basis))
        self.window_autocovariance.copy_(
            _autocovariances(courses, self.window_autocovariance.shape[1] - 1, NO_DRIFT)
        )
        power = torch.cat(courses).square().mean(0)
        share = torch.einsum("kcp,k->cp", self.modes.square(), power)
        deviation = torch.cat(rest).square().mean(0).sqrt().clamp(min=1e-6)
        self.remainder.fit(
            (self._field((run / deviation).unflatten(1, self.remainder_sd.shape)) for run in rest),
            basis,
        )
        # whatever share the modes have of a voxel, its variance is one in all
        self._level((1 - share).clamp(min=LEAST_REMAINDER))
        return self

    def _level(self, variance: Tensor) -> None:
        """Scale the remainder to a variance (C, P) at each voxel, once it is free of the modes."""
        self.remainder_sd.copy_(variance.sqrt())
        for number in range(LEVELLING_ROUNDS):
            generator = torch.Generator().manual_seed(number)
            reached = self._remainder(self.remainder.window(LEVELLING_FRAMES, generator))
            self.remainder_sd *= (variance / reached.square().mean(0).clamp(min=1e-6)).sqrt()

    def _remainder(self, field: Tensor) -> Tensor:
        """Scale stationary noise and take the modes out of it, (N, C, P).

        What it has of the modes would add to their variance, and make their
        courses, which go together, more independent than they are.
        """
        rest = (field[..., self.mask] * self.remainder_sd).flatten(1)
        axes = self.modes.flatten(1)  # K C·P
        return (rest - rest @ axes.T @ axes).unflatten(1, self.remainder_sd.shape)

    @torch.no_grad()
    def fit_people(self, fields: Iterable[Tensor], people: Sequence[str]) -> None:
        """Estimate how people's networks differ, from more runs than modes need.

        Parameters
        ----------
        fields : iterable of torch.Tensor
            As for `fit`; one is held at a time.
        people : sequence of str
            Whose run each field is.
        """
        axes = self.modes.flatten(1).T  # C·P K
        runs: dict[str, list[Tensor]] = {}
        for field, person in zip(fields, people, strict=True):
            courses = field[..., self.mask].flatten(1).float() @ axes  # N K
            runs.setdefault(person, []).append(courses)
        self.differences.copy_(_differences(list(runs.values()), len(self.differences)))
        self._stretch()

    def _stretch(self) -> None:
        """Scale the differences: a covariance cannot take all that the normal law asks for."""
        wanted, stretch = float(self.differences.square().sum()), 1.0
        original, unit = self.differences.clone(), torch.eye(len(self.modes)).to(self.modes)
        for _ in range(LEVELLING_ROUNDS if wanted > 0 else 0):
            roots = (self._root(person) for person in range(TRIED_PEOPLE))
            reached = sum(float((root @ root - unit).square().sum()) for root in roots)
            stretch *= (wanted * TRIED_PEOPLE / reached) ** 0.5
            self.differences.copy_(original * min(stretch, MOST_STRETCH))

    def sample(self, n_frames: int, generator: torch.Generator, person: int = 0) -> Tensor:
        """Draw a run (N, C, X, Y, Z) float32: of unit variance once its drift is removed.

        Parameters
        ----------
        n_frames : int
            Frames N.
        generator : torch.Generator
            Of all that is new in every draw.
        person : int
            Seed of all that one person's draws have in common.
        """
        rest = self._remainder(self.remainder.sample(n_frames, generator))
        return self._draw(rest, generator, self.autocovariance, person)

    def window(self, n_frames: int, generator: torch.Generator, person: int = 0) -> Tensor:
        """Draw a window (N, C, X, Y, Z) float32 of a run without drift, of unit variance."""
        rest = self._remainder(self.remainder.window(n_frames, generator))
        return self._draw(rest, generator, self.window_autocovariance, person)

    def _draw(
        self, rest: Tensor, generator: torch.Generator, autocovariance: Tensor, person: int
    ) -> Tensor:
        """Add the modes to the remainder (N, C, P)."""
        white = torch.randn(len(self.modes), len(rest), 1, generator=generator)
        courses = (factors_in_time(autocovariance, len(rest)) @ white)[..., 0]  # K N
        courses = self._networks(person) @ courses.to(rest)
        return self._field(rest + torch.einsum("kn,kcp->ncp", courses, self.modes))

    def _networks(self, person: int) -> Tensor:
        """Mix the modes' courses as one person's are, (K, K): the root of W on their own scales."""
        scale = self.autocovariance[:, 0].clamp(min=1e-8).sqrt()
        return scale[:, None] * self._root(person) / scale

    def _root(self, person: int) -> Tensor:
        """Root of a person's W, with a trace of K, (K, K)."""
        differing = difference(self.differences, person)
        values, vectors = torch.linalg.eigh(torch.eye(len(differing)).to(differing) + differing)
        values = values.clamp(min=LEAST_PERSONAL)
        return vectors @ ((values / values.mean()).sqrt()[:, None] * vectors.T)

    def _field(self, values: Tensor) -> Tensor:
        """(N, C, P) to (N, C, X, Y, Z), zero outside the brain."""
        field = values.new_zeros(*values.shape[:2], *self.mask.shape)
        field[..., self.mask] = values
        return field


def _principal_axes(rows: Tensor, count: int) -> Tensor:
    """First principal axes of rows (N, D), orthonormal (D, count), the same at every call.

    Where there are fewer rows, the axes that are missing are zero.
    """
    available = min(count, *rows.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the randomised range finder
        width = min(available + OVERSAMPLING, *rows.shape)
        axes = torch.svd_lowrank(rows, q=width, niter=POWER_ITERATIONS)[2]
    padded = rows.new_zeros(rows.shape[1], count)
    padded[:, :available] = axes[:, :available]
    return padded


def _differences(people: Sequence[Sequence[Tensor]], count: int) -> Tensor:
    """Principal components of how people's covariances of the modes differ, (count, K, K).

    Parameters
    ----------
    people : sequence of sequence of torch.Tensor
        (N, K) courses of each run of each person.
    count : int
        Components, at most.
    """
    every = [course for runs in people for course in runs]
    scale = torch.cat(every).square().mean(0).sqrt().clamp(min=1e-6)
    halves = []
    for runs in people:
        parts = [run / scale for run in runs]
        halves.append(in_two(parts if len(parts) > 1 else parts[0].chunk(2)))
    first, second = (torch.stack([_covariance(half[which]) for half in halves]) for which in (0, 1))
    n_modes = len(scale)
    rank = torch.arange(n_modes) // MODES_TOGETHER
    return between_people(first, second, rank[:, None] * n_modes + rank, count)


def _covariance(courses: Sequence[Tensor]) -> Tensor:
    """Covariance of scaled courses (N, K), with a trace of K: how large they are is no network."""
    total = torch.stack([course.T @ course for course in courses]).sum(0)
    return total * (len(total) / total.trace().clamp(min=1e-12))


def _autocovariances(courses: Sequence[Tensor], order: int, basis: np.ndarray) -> Tensor:
    """Autocovariances (K, order + 1) of courses (N, K), each that of a possible process."""
    totals = torch.zeros(courses[0].shape[1], order + 1, dtype=torch.float64)
    counts = torch.zeros(order + 1, dtype=torch.float64)
    for course in courses:
        values = course.double().cpu()
        for lag in range(min(order + 1, len(values))):
            totals[:, lag] += (values[: len(values) - lag] * values[lag:]).sum(0)
            counts[lag] += len(values) - lag
    lags = totals / counts.clamp(min=1)
    return (colour(lags, basis) * lags[:, :1].clamp(min=1e-8)).float()
