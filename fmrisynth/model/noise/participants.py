"""Measure what runs show of their participants' noise, and how much of that is chance.

Legend: N frames, K modes, L lags, C channels, P voxels of the brain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.individual_differences import MINIMUM_PARTICIPANTS, split_halves
from fmrisynth.model.noise.autocovariance import fit_autocovariance
from fmrisynth.model.noise.protocol import RunNoise

__all__ = [
    "MINIMUM_POWER",
    "autocorrelation",
    "mean_autocovariance",
    "mean_covariance",
    "mean_lags",
    "mean_remainder",
    "mode_bands",
    "process_autocovariance",
    "relative_loudness",
    "signal_per_frame",
]

MINIMUM_POWER = 1e-8  # of a mode


def autocorrelation(rest: Tensor, n_lags: int) -> Tensor:
    """Compute the autocorrelation of values (N, D), pooled, (n_lags,) float32 on the CPU."""
    length = len(rest)
    lags = torch.zeros(n_lags, dtype=torch.float64)
    for lag in range(min(n_lags, length)):
        both = (rest[lag:] * rest[: length - lag]).sum(dtype=torch.float64)
        lags[lag] = both.cpu() / (length - lag)
    return (lags / lags[0].clamp(min=1e-12)).float()


def mean_lags(runs: Sequence[RunNoise]) -> Tensor:
    """Average the autocorrelation of what the modes leave over the frames of runs, (L,)."""
    frames = torch.tensor([float(len(run.courses)) for run in runs])
    return frames @ torch.stack([run.remainder_lags for run in runs]) / frames.sum()


def mean_covariance(courses: Sequence[Tensor]) -> Tensor:
    """Average the covariance of courses (N, K) over the frames of runs, (K, K) float32."""
    values = torch.cat([course.float().cpu() for course in courses])
    return values.T @ values / len(values)


def mean_autocovariance(courses: Sequence[Tensor], n_lags: int) -> Tensor:
    """Average the autocovariance of each of K courses (N, K) over runs, (K, n_lags) float64.

    A lag that no run is long enough for counts as zero.
    """
    totals = torch.zeros(courses[0].shape[1], n_lags, dtype=torch.float64)
    counts = torch.zeros(n_lags, dtype=torch.float64)
    for course in courses:
        values = course.double().cpu()
        for lag in range(min(n_lags, len(values))):
            totals[:, lag] += (values[: len(values) - lag] * values[lag:]).sum(0)
            counts[lag] += len(values) - lag
    return totals / counts.clamp(min=1)


def process_autocovariance(courses: Sequence[Tensor], order: int, removed: np.ndarray) -> Tensor:
    """Estimate autocovariances of courses (N, K) before removal, positive definite.

    Parameters
    ----------
    courses : sequence of Tensor of shape (N, K)
        Of each run.
    order : int
        Largest lag.
    removed : ndarray of shape (N, R)
        Orthonormal: what was removed from a run of typical length.

    Returns
    -------
    Tensor of shape (K, order + 1)
        float32.
    """
    lags = mean_autocovariance(courses, order + 1)
    return (fit_autocovariance(lags, removed) * lags[:, :1].clamp(min=MINIMUM_POWER)).float()


def signal_per_frame(participants: Iterable[Sequence[RunNoise]]) -> tuple[Tensor, float]:
    """Estimate the variance between participants over the chance variance of one frame.

    An estimate from n frames differs from the group by the participant's true difference, of
    variance τ² over participants, and by chance, of variance σ²/n, to which also belongs what
    changes from run to run. Two halves of each participant's runs tell τ² (their covariance)
    from σ² (their difference). The first modes, whose variance is large, tell participants
    apart by more than the many small ones do, so each band of modes has a ratio of its own; and
    how loud a band is, is known far better than how its modes go together.

    Parameters
    ----------
    participants : iterable of sequence of RunNoise
        Runs of each participant.

    Returns
    -------
    modes : Tensor of shape (2, K)
        τ²/σ² of the mean variance of the modes of a band, and of their covariance, for each of its
        modes; 0 where participants are not seen to differ.
    remainder : float
        τ²/σ² of the variance that the modes leave at each voxel.
    """
    bands: list[slice] = []
    modes = torch.zeros(2, 0)
    networks: list[tuple[_Variances, _Variances]] = []
    remainder = _Variances()
    for runs in participants:
        if not networks:
            modes = torch.zeros(2, runs[0].courses.shape[1])
            bands = mode_bands(modes.shape[1])
            networks = [(_Variances(), _Variances()) for _ in bands]
        if len(runs) < 2:
            continue
        pair = split_halves(runs)
        frames = [sum(len(run.courses) for run in half) for half in pair]
        first, second = (mean_covariance([run.courses for run in half]) for half in pair)
        for band, (loudness, together) in zip(bands, networks, strict=True):
            one, other = first[band, band], second[band, band]
            loudness.add(one.trace(), other.trace(), frames)
            together.add(one, other, frames)
        first, second = (mean_remainder(half) for half in pair)
        remainder.add(first, second, frames)
    if remainder.count < MINIMUM_PARTICIPANTS:
        return modes, 0.0
    for band, both in zip(bands, networks, strict=True):
        for row, variances in zip(modes, both, strict=True):
            row[band] = variances.signal()
    return modes, remainder.signal()


def relative_loudness(variance: Tensor, group: Tensor) -> Tensor:
    """Compute how much louder than the group a participant is in each mode's band, (K,)."""
    louder = torch.ones_like(variance)
    for band in mode_bands(len(variance)):
        louder[band] = variance[band].sum() / group[band].sum().clamp(min=MINIMUM_POWER)
    return louder


def mode_bands(count: int) -> list[slice]:
    """Divide modes into bands: the first mode, those up to 8, to 32, and so on by fours."""
    edges = [0, 1, 8]
    while edges[-1] < count:
        edges.append(4 * edges[-1])
    return [slice(a, min(b, count)) for a, b in pairwise(edges) if a < count]


def mean_remainder(runs: Sequence[RunNoise]) -> Tensor:
    """Average what the modes leave over the frames of runs, (C, P) float32."""
    frames = torch.tensor([float(len(run.courses)) for run in runs])
    power = torch.stack([run.remainder.float().cpu() for run in runs])
    return torch.tensordot(frames / frames.sum(), power, dims=1)


class _Variances:
    """Accumulate estimates of one quantity from two halves of each participant's runs."""

    def __init__(self) -> None:
        self.count, self.product, self.chance = 0, 0.0, 0.0
        self.first = self.second = torch.zeros(())

    def add(self, first: Tensor, second: Tensor, frames: Sequence[int]) -> None:
        """Add one participant, whose halves have so many frames."""
        self.count += 1
        self.product += float((first * second).sum(dtype=torch.float64))
        self.first, self.second = self.first + first, self.second + second
        difference = float((first - second).square().sum(dtype=torch.float64))
        self.chance += difference / sum(1 / n for n in frames)

    def signal(self) -> float:
        """Divide the variance between participants by chance per frame."""
        common = float((self.first * self.second).sum(dtype=torch.float64)) / self.count
        between = (self.product - common) / (self.count - 1)
        return max(0.0, between / max(self.chance / self.count, 1e-12))
