"""Draw stationary Gaussian noise with the covariance of the latents in space and time.

A field with C channels is described by

- a cross-spectrum over space: one Hermitian C × C matrix per spatial frequency,
  from the sample covariance averaged by spatial offset (counting only pairs of
  voxels that both lie in the brain), shrunk by count / (count + 20) and tapered;
- an autoregression over time for each channel and band of spatial frequencies,
  since coarse patterns (networks) change more slowly than fine ones;
- at each voxel and channel, a two-frame filter that makes it slower or faster
  than the average, since grey matter is slower than the rest.

All are cheap at any size: sampling is two FFTs and one triangular product.

The training runs have lost their mean and slow drift. `sample_run` draws from the process
before that removal and then removes mean and drift in the same way; `sample_window` draws
from the autocovariance that remains on average over the windows of a run, whose position
in the run is unknown. If the two differed, the network would learn to remove drift from
the noise, and it would be removed twice.

Legend: N frames, C channels, X Y Z box, P Q R padded box, F spatial frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from fmrisynth.model.noise.autocovariance import (
    NO_DRIFT,
    extended_autocovariance,
    factors_in_time,
    fit_autocovariance,
    shrink_autocovariance,
)
from fmrisynth.model.noise.protocol import NoiseModel, remove_mean_and_drift

__all__ = ["FieldSums", "StationaryNoise"]

TAPER = 8.0  # voxels, scale of the Gaussian taper of the spatial covariance
FREQUENCIES_AT_ONCE = 1024  # of which all frames of a run fit into the cache
SHRINKAGE = 20.0  # pairs of voxels at which a sample covariance is trusted by half


class FieldSums(NamedTuple):
    """Hold all that a fit needs of one run's field, as arrays that other processes can send.

    Attributes
    ----------
    n_frames : int
        Frames N of the run.
    ends : ndarray of shape (2, C, X, Y, Z)
        By voxel, sums over frames of the products at lags 0 and 1.
    power : ndarray of shape (P, Q, R, C, C)
        Cross-spectrum over space, summed over frames.
    lagged : ndarray of shape (lags, C, P, Q, R)
        Each channel's cross-power between frames at each lag.
    """

    n_frames: int
    ends: np.ndarray
    power: np.ndarray
    lagged: np.ndarray


class StationaryNoise(NoiseModel):
    """Draw noise with the spatial cross-spectrum and the autocovariance in time of the latents.

    Parameters
    ----------
    channels : int
        Channels C of a field.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    bands : int
        Bands of spatial frequency with an autocovariance in time of their own.
    order : int
        Order of the autoregressions.
    frames : int
        Frames of a training window, whose autocovariance is estimated at every lag.
    high_pass : float or None
        Highest drift frequency that whole runs are drawn without, Hz; None leaves
        mean and drift in.
    """

    mask: Tensor
    transfer: Tensor
    autocovariance: Tensor
    window_autocovariance: Tensor
    filter: Tensor

    def __init__(
        self,
        channels: int,
        mask: Tensor,
        *,
        bands: int = 4,
        order: int = 8,
        frames: int = 16,
        high_pass: float | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.order, self.high_pass = channels, order, high_pass
        reach = int(TAPER * 1.5)
        self.box = tuple(next_fast_len(n + min(n, reach), real=True) for n in mask.shape)
        half = (self.box[0], self.box[1], self.box[2] // 2 + 1)
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("transfer", torch.zeros(2, *half, channels, channels))
        self.register_buffer("autocovariance", torch.zeros(bands, channels, order + 1))
        self.register_buffer("window_autocovariance", torch.zeros(bands, channels, max(2, frames)))
        self.register_buffer("filter", torch.zeros(channels, *mask.shape))
        self._band_of = _bands(self.box, bands)

    @torch.no_grad()
    def fit(self, fields: Iterable[Tensor], removed: np.ndarray) -> Self:
        """Estimate cross-spectrum, autocovariances and filters; see `NoiseModel.fit`."""
        return self.fit_sums(map(self.sums_of, fields), removed)

    @torch.no_grad()
    def sums_of(self, field: Tensor) -> FieldSums:
        """Sum up what a fit needs of one run's field (N, C, X, Y, Z)."""
        ends = torch.stack([(field * field).sum(0), (field[1:] * field[:-1]).sum(0)])
        spectrum = torch.fft.rfftn(field.float() * self.mask, s=self.box, dim=(-3, -2, -1))
        power = torch.einsum("ncpqr,ndpqr->pqrcd", spectrum, spectrum.conj())
        lagged = _lagged_power(spectrum, self._n_lags)
        return FieldSums(len(field), *(part.cpu().numpy() for part in (ends, power, lagged)))

    @torch.no_grad()
    def fit_sums(self, sums: Iterable[FieldSums], removed: np.ndarray) -> Self:
        """Estimate the same from the sums of runs, at least one."""
        lags = torch.arange(self._n_lags)
        counts = torch.zeros(len(lags))
        totals: list[Any] = [0.0, 0.0, 0.0]
        for run in sums:
            counts += (run.n_frames - lags).clamp(min=0)
            parts = (run.ends, run.power, run.lagged)
            totals = [total + part for total, part in zip(totals, parts, strict=True)]
        local, power, lagged = (torch.from_numpy(total).to(self.mask.device) for total in totals)
        self.transfer.copy_(torch.view_as_real(self._transfer(power / counts[0])).movedim(-1, 0))
        means = lagged / counts.clamp(min=1).to(lagged).view(-1, 1, 1, 1, 1)
        self.autocovariance.copy_(self._fit_autocovariances(means[: self.order + 1], removed))
        frames = self.window_autocovariance.shape[-1]
        self.window_autocovariance.copy_(self._fit_autocovariances(means[:frames], NO_DRIFT))
        self.filter.copy_(self._local_filter(local[1] / local[0].clamp(min=1e-6)))
        return self

    @property
    def _n_lags(self) -> int:
        """Number of lags that are estimated."""
        return max(self.order + 1, self.window_autocovariance.shape[-1])

    def with_lags(self, of_runs: Tensor, of_windows: Tensor, known: float) -> StationaryNoise:
        """Copy the noise with other autocovariances, all else shared.

        Bands, channels and voxels keep their differences.

        Parameters
        ----------
        of_runs : Tensor of shape (L,)
            Autocovariance over all values, in runs whose variance without drift is one.
        of_windows : Tensor of shape (L,)
            That of windows, whose variance is one.
        known : float
            Share of the way towards them, 0 to 1.
        """
        other = copy(self)
        other._buffers = dict(self._buffers)
        for name, lags in (
            ("autocovariance", of_runs),
            ("window_autocovariance", of_windows),
        ):
            other._buffers[name] = self._towards(getattr(self, name), lags, known)
        return other

    def _towards(self, rows: Tensor, lags: Tensor, known: float) -> Tensor:
        """Move autocovariances (bands, C, L) so that their mean moves towards one."""
        whole = extended_autocovariance(lags.double().cpu().numpy(), rows.shape[-1])
        weight = self._power_by_band()[..., None]
        mean = (weight * rows).sum((0, 1)) / weight.sum()
        moved = rows + known * (torch.from_numpy(whole).to(rows) - mean)
        return torch.from_numpy(shrink_autocovariance(moved.double().cpu().numpy())).to(rows)

    def sample_run(
        self, n_frames: int, t_r: float, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw a run (N, C, X, Y, Z) float32, without drift below `high_pass`; see `NoiseModel`.

        Ignores `participant_seed`: stationary noise has no spatial patterns in which
        participants could differ.
        """
        noise = self._draw(n_frames, generator, self.autocovariance)
        return remove_mean_and_drift(noise, t_r, self.high_pass)

    def sample_window(
        self, n_frames: int, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw a window (N, C, X, Y, Z) float32 of unit variance; see `NoiseModel`."""
        return self._draw(n_frames, generator, self.window_autocovariance)

    def _draw(self, n_frames: int, generator: torch.Generator, autocovariance: Tensor) -> Tensor:
        """Draw (N, C, X, Y, Z) with an autocovariance in time (bands, C, lags)."""
        # one frame more, for the filter to reach back to
        white = torch.randn(n_frames + 1, self.channels, *self.box, generator=generator)
        spectrum = torch.fft.rfftn(white.to(self.mask.device), dim=(-3, -2, -1))
        spectrum = self._correlate_in_time(spectrum, autocovariance)
        transfer = torch.complex(self.transfer[0], self.transfer[1])
        if self.channels == 1:  # batches of products of 1 by 1 matrices take far longer
            spectrum *= transfer[..., 0, 0]
        else:
            spectrum = torch.einsum("pqrcd,ndpqr->ncpqr", transfer, spectrum)
        field = torch.fft.irfftn(spectrum, s=self.box, dim=(-3, -2, -1))
        x, y, z = self.mask.shape
        field = field[..., :x, :y, :z]
        lag1 = self._average_lags(autocovariance)[1]
        gain = (1 + self.filter.square() + 2 * self.filter * lag1).rsqrt()
        return (field[1:] + self.filter * field[:-1]) * gain * self.mask

    def _average_lags(self, autocovariance: Tensor) -> Tensor:
        """Average the correlation at lags 0, 1, 2 over bands and channels, weighted by power."""
        lags = (self._power_by_band()[..., None] * autocovariance[..., :3]).sum((0, 1))
        return lags / lags[0]

    def _power_by_band(self) -> Tensor:
        """Sum the power of each band and channel, (bands, C)."""
        power = self.transfer.square().sum((0, -1)).flatten(0, 2)  # F C
        bands = len(self.autocovariance)
        return torch.stack([power[self._band_of == b].sum(0) for b in range(bands)])

    def _local_filter(self, lag1: Tensor) -> Tensor:
        """Solve for b in y(t) = x(t) + b · x(t − 1) such that each voxel has its lag-1 correlation.

        Parameters
        ----------
        lag1 : Tensor of shape (C, X, Y, Z)
            Lag-1 autocorrelation of the fields; only its departure from the
            channel's mean counts.
        """
        _, rho1, rho2 = self._average_lags(self.autocovariance).tolist()
        b = torch.linspace(-0.7, 0.7, 281, device=lag1.device)
        reached = (rho1 * (1 + b**2) + b * (1 + rho2)) / (1 + b**2 + 2 * b * rho1)
        departure = lag1 - lag1[:, self.mask].mean(1)[:, None, None, None]
        index = torch.searchsorted(reached.contiguous(), (rho1 + departure).contiguous())
        return b[index.clamp(max=len(b) - 1)] * self.mask

    def _correlate_in_time(self, spectrum: Tensor, autocovariance: Tensor) -> Tensor:
        """Mix frames by the Cholesky factor of each band and channel.

        Its T × T corner is that of a window of T, so that a window of a run's
        noise is distributed as a window's own.
        """
        flat = spectrum.flatten(2)  # N C F
        out = torch.empty_like(flat)
        factors = factors_in_time(autocovariance.flatten(0, 1), len(flat)).to(flat.real)
        factors = factors.view(len(autocovariance), flat.shape[1], len(flat), len(flat))
        for band, factor in enumerate(factors):  # C N N
            chosen = self._band_of == band
            part = torch.view_as_real(flat[:, :, chosen])  # N C F' 2
            mixed = torch.einsum("cnm,mcfr->ncfr", factor, part)
            out[:, :, chosen] = torch.view_as_complex(mixed.contiguous())
        return out.view_as(spectrum)

    def _fit_autocovariances(self, lagged: Tensor, removed: np.ndarray) -> Tensor:
        """Fit the autocovariance of each band and channel, (bands, C, lags).

        The cross-powers are freed of the mask's leakage between frequencies,
        which would make all bands alike, in the same way as the spectrum.
        """
        covariance = torch.fft.irfftn(lagged, s=self.box, dim=(-3, -2, -1))
        spectra = torch.fft.rfftn(covariance * self._weight(), dim=(-3, -2, -1)).real
        flat = spectra.flatten(2).double().cpu()  # lags C F
        flat = torch.where(flat[:1] > 0, flat, 0)  # clipped frequencies have no course in time
        bands = len(self.autocovariance)
        by_band = torch.stack([flat[..., self._band_of == b].sum(2) for b in range(bands)])
        rows = by_band.movedim(1, 2)  # bands C lags
        whole = flat.sum(2).T.expand_as(rows)
        # a band of negligible power takes the autocovariance of all bands together
        rows = torch.where(rows[..., :1] > 1e-3 * whole[..., :1], rows, whole)
        return fit_autocovariance(rows.flatten(0, 1), removed).view_as(rows)

    def _weight(self) -> Tensor:
        """Weight a sum over pairs of voxels at each offset: mean, shrinkage, taper, (P, Q, R)."""
        inside = torch.fft.rfftn(self.mask.float(), s=self.box)
        pairs = torch.fft.irfftn(inside.abs() ** 2, s=self.box).round().clamp(min=0)
        mean = torch.where(pairs > 0, 1 / pairs.clamp(min=1), 0)
        return mean * pairs / (pairs + SHRINKAGE) * _taper(self.box).to(pairs)

    def _transfer(self, power: Tensor) -> Tensor:
        """Take the Hermitian square root of the tapered, shrunk and normalised cross-spectrum."""
        box = self.box
        covariance = torch.fft.irfftn(power, s=box, dim=(0, 1, 2))  # P Q R C D
        covariance = covariance * self._weight()[..., None, None]
        spectrum = torch.fft.rfftn(covariance, dim=(0, 1, 2))
        values, vectors = torch.linalg.eigh((spectrum + spectrum.mH) / 2)
        values = values.clamp(min=0)
        root = torch.einsum(
            "...ij,...j,...kj->...ik", vectors, values.sqrt().to(vectors), vectors.conj()
        )
        variance = torch.fft.irfftn((root @ root.mH), s=box, dim=(0, 1, 2))[0, 0, 0].diagonal()
        return root / variance.clamp(min=1e-12).sqrt()[:, None]


def _lagged_power(spectrum: Tensor, lags: int) -> Tensor:
    """Sum each channel's cross-power at each lag over frames, (lags, C, P, Q, R)."""
    flat = spectrum.flatten(1)
    n_frames, n_frequencies = flat.shape
    at_once = FREQUENCIES_AT_ONCE if flat.device.type == "cpu" else n_frequencies
    sums = [
        torch.stack(
            [
                (part[: max(0, n_frames - lag)].conj() * part[lag:]).real.sum(0)
                for lag in range(lags)
            ]
        )
        for part in flat.split(at_once, dim=1)
    ]
    return torch.cat(sums, dim=1).view(lags, *spectrum.shape[1:])


def _taper(box: tuple[int, ...]) -> Tensor:
    """Evaluate a Gaussian of the offset's length, in FFT order, (P, Q, R)."""
    axes = [torch.fft.fftfreq(n, 1 / n).square() for n in box]
    distance2 = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    return torch.exp(-distance2 / (2 * TAPER**2))


def _bands(box: tuple[int, ...], count: int) -> Tensor:
    """Assign each spatial frequency (flattened) to a band, equally wide in radius up to Nyquist."""
    axes = [torch.fft.fftfreq(n).square() for n in box[:2]] + [torch.fft.rfftfreq(box[2]).square()]
    radius = (axes[0][:, None, None] + axes[1][:, None] + axes[2]).sqrt().flatten()
    return (radius / 0.5 * count).long().clamp(max=count - 1)
