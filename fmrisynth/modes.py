"""Noise with the networks of the data: a few large-scale modes, and stationary noise for the rest.

Stationary noise (`fmrisynth.noise`) has one covariance for each offset between
two voxels, wherever they lie; distant regions that fluctuate together are not in
it. Modes are: spatial patterns, each with a variance and a colour of its own
over time. They are found in one half of the runs, and their variance and colour
measured in the other, since the sample variance of the runs that a pattern was
fitted to is too large.

Legend: K modes, N frames, C channels, P voxels of the brain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fmrisynth.noise import ColouredNoise, colour, factors_in_time

__all__ = ["ModalNoise"]

OVERSAMPLING, POWER_ITERATIONS = 16, 4  # of the randomised decomposition
LEAST_REMAINDER = 0.05  # share of a voxel's variance that is no mode's


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
    order : int
        Order of the autoregressions.
    """

    mask: Tensor
    modes: Tensor
    autocovariance: Tensor
    remainder_sd: Tensor

    def __init__(self, channels: int, mask: Tensor, modes: int, *, order: int = 8) -> None:
        super().__init__()
        self.order, voxels = order, int(mask.sum())
        count = min(modes, channels * voxels)
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("modes", torch.zeros(count, channels, voxels))
        self.register_buffer("autocovariance", torch.zeros(count, order + 1))
        self.register_buffer("remainder_sd", torch.ones(channels, voxels))
        self.remainder = ColouredNoise(channels, mask, order=order)

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
            `fmrisynth.noise.unfiltered`.

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
        power = torch.cat(courses).square().mean(0)
        share = torch.einsum("kcp,k->cp", self.modes.square(), power)
        # whatever share the modes have of a voxel, its variance is one in all
        self.remainder_sd.copy_((1 - share).clamp(min=LEAST_REMAINDER).sqrt())
        deviation = torch.cat(rest).square().mean(0).sqrt().clamp(min=1e-6)
        self.remainder.fit(
            (self._field((run / deviation).unflatten(1, self.remainder_sd.shape)) for run in rest),
            basis,
        )
        return self

    def sample(self, n_frames: int, generator: torch.Generator) -> Tensor:
        """Draw (N, C, X, Y, Z) float32: unit variance inside the brain once drift is removed."""
        rest = self.remainder.sample(n_frames, generator)[..., self.mask] * self.remainder_sd
        white = torch.randn(len(self.modes), n_frames, 1, generator=generator)
        courses = (factors_in_time(self.autocovariance, n_frames) @ white)[..., 0]  # K N
        return self._field(rest + torch.einsum("kn,kcp->ncp", courses.to(rest), self.modes))

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
