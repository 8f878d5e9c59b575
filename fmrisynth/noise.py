"""Gaussian noise with the colour of the data, stationary in time, masked to the brain.

`ColouredNoise` is a few large-scale modes (networks), each with a colour of its
own over time, and stationary noise for what they leave. `StationaryNoise`, a
field with C channels, is described by

- a cross-spectrum over space: one Hermitian C × C matrix per spatial frequency,
  from the sample covariance averaged by spatial offset (counting only pairs of
  voxels that both lie in the brain), shrunk by count / (count + 20) and tapered;
- an autoregression over time for each band of spatial frequencies, since coarse
  patterns (networks) change more slowly than fine ones.

Both are cheap at any size: sampling is two FFTs and one triangular product.
Modes are found in one half of the runs, and their variance and colour measured in
the other: sample eigenvalues of the runs that a mode was fitted to are too large.

Legend: K modes, N frames, C channels, X Y Z box, P Q R padded box, F spatial frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.linalg import solve_toeplitz, toeplitz
from torch import Tensor, nn

__all__ = [
    "ColouredNoise",
    "StationaryNoise",
    "WhiteNoise",
    "autoregression",
    "extended_autocovariance",
]

TAPER = 8.0  # voxels, scale of the Gaussian taper of the spatial covariance
SHRINKAGE = 20.0  # pairs of voxels at which a sample covariance is trusted by half
MINIMUM_EIGENVALUE = 1e-3  # of the autocovariance, relative to the variance


class WhiteNoise(nn.Module):
    """Independent noise of unit variance inside the brain, the form of the published method."""

    mask: Tensor

    def __init__(self, channels: int, mask: Tensor) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mask", mask.bool(), persistent=False)

    def sample(self, n_frames: int, generator: torch.Generator) -> Tensor:
        """Draw (N, C, X, Y, Z) float32."""
        white = torch.randn(n_frames, self.channels, *self.mask.shape, generator=generator)
        return white.to(self.mask.device) * self.mask


class StationaryNoise(nn.Module):
    """Noise with the spatial cross-spectrum and the temporal colour of the data.

    Parameters
    ----------
    channels : int
        Channels C of a field.
    mask : torch.Tensor
        (X, Y, Z) bool, the brain.
    bands : int
        Bands of spatial frequency with a temporal colour of their own.
    order : int
        Order of the autoregressions.
    """

    mask: Tensor
    transfer: Tensor
    autocovariance: Tensor

    def __init__(self, channels: int, mask: Tensor, *, bands: int = 4, order: int = 8) -> None:
        super().__init__()
        self.channels, self.order = channels, order
        reach = int(TAPER * 1.5)
        self.box = tuple(next_fast_len(n + min(n, reach), real=True) for n in mask.shape)
        half = (self.box[0], self.box[1], self.box[2] // 2 + 1)
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("transfer", torch.zeros(2, *half, channels, channels))
        self.register_buffer("autocovariance", torch.zeros(bands, channels, order + 1))
        self._band_of = _bands(self.box, bands)

    @torch.no_grad()
    def fit(self, fields: Iterable[Tensor]) -> StationaryNoise:
        """Estimate spectrum and colour from standardised fields.

        Parameters
        ----------
        fields : iterable of torch.Tensor
            One (N, C, X, Y, Z) per run, zero mean and unit variance at each
            voxel and channel over the training set; runs may differ in N.

        Returns
        -------
        StationaryNoise
            Itself.
        """
        power: Tensor | float = 0.0
        lags = torch.zeros_like(self.autocovariance, dtype=torch.float64)
        counts = torch.zeros(self.order + 1, dtype=torch.float64)
        frames = 0
        for field in fields:
            spectrum = torch.fft.rfftn(field.float() * self.mask, s=self.box, dim=(-3, -2, -1))
            flat = spectrum.movedim(1, -1)  # N P Q R C
            power = power + torch.einsum("npqrc,npqrd->pqrcd", flat, flat.conj())
            lags += self._products(spectrum)
            counts += (len(field) - torch.arange(self.order + 1)).clamp(min=0)
            frames += len(field)
        assert isinstance(power, Tensor), "at least one run is needed"
        self.transfer.copy_(torch.view_as_real(self._transfer(power / frames)).movedim(-1, 0))
        rows = (lags / counts).flatten(0, 1)
        self.autocovariance.copy_(_positive(rows).view_as(self.autocovariance))
        return self

    def sample(self, n_frames: int, generator: torch.Generator) -> Tensor:
        """Draw (N, C, X, Y, Z) float32: unit variance inside the brain, zero outside."""
        white = torch.randn(n_frames, self.channels, *self.box, generator=generator)
        spectrum = torch.fft.rfftn(white.to(self.mask.device), dim=(-3, -2, -1))
        spectrum = self._colour_in_time(spectrum).movedim(1, -1)  # N P Q R C
        transfer = torch.complex(self.transfer[0], self.transfer[1])
        spectrum = torch.einsum("pqrcd,npqrd->npqrc", transfer, spectrum).movedim(-1, 1)
        field = torch.fft.irfftn(spectrum, s=self.box, dim=(-3, -2, -1))
        x, y, z = self.mask.shape
        return field[..., :x, :y, :z] * self.mask

    def _colour_in_time(self, spectrum: Tensor) -> Tensor:
        """Mix frames by the Cholesky factor of each band and channel.

        Its T × T corner is that of a window of T, so that a window of a run's
        noise is distributed as a window's own.
        """
        flat = spectrum.flatten(2)  # N C F
        out = torch.empty_like(flat)
        factors = _factors(self.autocovariance.flatten(0, 1), len(flat)).to(flat.real)
        factors = factors.view(len(self.autocovariance), flat.shape[1], len(flat), len(flat))
        for band, factor in enumerate(factors):  # C N N
            chosen = self._band_of == band
            part = torch.view_as_real(flat[:, :, chosen])  # N C F' 2
            mixed = torch.einsum("cnm,mcfr->ncfr", factor, part)
            out[:, :, chosen] = torch.view_as_complex(mixed.contiguous())
        return out.view_as(spectrum)

    def _products(self, spectrum: Tensor) -> Tensor:
        """Sums over frames of products at each lag: (bands, C, order + 1)."""
        flat = torch.view_as_real(spectrum.flatten(2))  # N C F 2
        sums = []
        for lag in range(self.order + 1):
            if lag >= len(flat):
                sums.append(torch.zeros(flat.shape[1:3], dtype=torch.float64))
                continue
            product = (flat[: len(flat) - lag] * flat[lag:]).sum(dim=(0, 3))  # C F
            sums.append(product.double().cpu())
        by_frequency = torch.stack(sums, dim=1)  # C lags F
        bands = len(self.autocovariance)
        return torch.stack([by_frequency[..., self._band_of == b].sum(2) for b in range(bands)])

    def _transfer(self, power: Tensor) -> Tensor:
        """Hermitian square root of the tapered, shrunk and normalised cross-spectrum."""
        box = self.box
        inside = torch.fft.rfftn(self.mask.float(), s=box)
        pairs = torch.fft.irfftn(inside.abs() ** 2, s=box).round().clamp(min=0)  # by offset
        covariance = torch.fft.irfftn(power, s=box, dim=(0, 1, 2))  # P Q R C D
        weight = torch.where(pairs > 0, 1 / pairs.clamp(min=1), 0) * pairs / (pairs + SHRINKAGE)
        covariance = covariance * (weight * _taper(box).to(weight))[..., None, None]
        spectrum = torch.fft.rfftn(covariance, dim=(0, 1, 2))
        values, vectors = torch.linalg.eigh((spectrum + spectrum.mH) / 2)
        values = values.clamp(min=0)
        root = torch.einsum(
            "...ij,...j,...kj->...ik", vectors, values.sqrt().to(vectors), vectors.conj()
        )
        variance = torch.fft.irfftn((root @ root.mH), s=box, dim=(0, 1, 2))[0, 0, 0].diagonal()
        return root / variance.clamp(min=1e-12).sqrt()[:, None]


class ColouredNoise(nn.Module):
    """Large-scale modes with colours of their own, and stationary noise for the rest.

    Parameters
    ----------
    channels : int
        Channels C of a field.
    mask : torch.Tensor
        (X, Y, Z) bool, the brain.
    modes : int
        Modes K.
    order : int
        Order of the autoregressions.
    """

    mask: Tensor
    modes: Tensor
    autocovariance: Tensor
    remainder_sd: Tensor

    def __init__(self, channels: int, mask: Tensor, *, modes: int = 64, order: int = 8) -> None:
        super().__init__()
        self.order = order
        self.register_buffer("mask", mask.bool(), persistent=False)
        size = channels * int(mask.sum())
        self.register_buffer("modes", torch.zeros(min(modes, size), channels, int(mask.sum())))
        self.register_buffer("autocovariance", torch.zeros(len(self.modes), order + 1))
        self.register_buffer("remainder_sd", torch.zeros(channels, int(mask.sum())))
        self.remainder = StationaryNoise(channels, mask, order=order)

    @torch.no_grad()
    def fit(self, fields: Sequence[Tensor]) -> ColouredNoise:
        """Estimate modes, variances and colours from standardised fields.

        Parameters
        ----------
        fields : sequence of torch.Tensor
            One (N, C, X, Y, Z) per run, ordered by participant, zero mean and
            unit variance at each voxel and channel over the training set.

        Returns
        -------
        ColouredNoise
            Itself.
        """
        half = max(1, len(fields) // 2)
        flat = [field[..., self.mask].flatten(1) for field in fields]  # N C·P
        first, second = flat[:half], flat[half:] or flat
        vectors = _principal(torch.cat(first), len(self.modes))  # C·P K
        courses = [run @ vectors for run in second]  # N K
        self.autocovariance.copy_(_lagged(courses, self.order))
        self.modes.copy_(vectors.T.reshape(self.modes.shape))
        rest = [run - course @ vectors.T for run, course in zip(second, courses, strict=True)]
        variance = torch.cat(rest).square().mean(0).view_as(self.remainder_sd)
        kept = torch.einsum("kcp,k->cp", self.modes.square(), self.autocovariance[:, 0])
        # unit variance in all, whatever share the modes have of a voxel
        self.remainder_sd.copy_((1 - kept).clamp(min=0.05).sqrt())
        scale = variance.sqrt().clamp(min=1e-6)
        self.remainder.fit(self._unflatten(run.view(-1, *scale.shape) / scale) for run in rest)
        return self

    def sample(self, n_frames: int, generator: torch.Generator) -> Tensor:
        """Draw (N, C, X, Y, Z) float32: unit variance inside the brain, zero outside."""
        rest = self.remainder.sample(n_frames, generator)[..., self.mask] * self.remainder_sd
        white = torch.randn(len(self.modes), n_frames, 1, generator=generator)
        factors = _factors(self.autocovariance, n_frames).to(self.mask.device)
        courses = (factors @ white.to(self.mask.device))[..., 0]  # K N
        return self._unflatten(rest + torch.einsum("kn,kcp->ncp", courses, self.modes))

    def _unflatten(self, values: Tensor) -> Tensor:
        """(N, C, P) to (N, C, X, Y, Z)."""
        field = values.new_zeros(*values.shape[:2], *self.mask.shape)
        field[..., self.mask] = values
        return field


def _principal(rows: Tensor, count: int) -> Tensor:
    """First principal axes of rows (N, D), orthonormal (D, count), repeatable."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the randomised range finder
        available = min(count, *rows.shape)
        axes = torch.svd_lowrank(rows, q=min(available + 16, *rows.shape), niter=4)[2][
            :, :available
        ]
    padded = rows.new_zeros(rows.shape[1], count)
    padded[:, :available] = axes
    return padded


def _lagged(courses: Sequence[Tensor], order: int) -> Tensor:
    """Autocovariances (K, order + 1) of courses (N, K), each a covariance that is positive."""
    totals = torch.zeros(courses[0].shape[1], order + 1, dtype=torch.float64)
    counts = torch.zeros(order + 1, dtype=torch.float64)
    for course in courses:
        values = course.double()
        for lag in range(min(order + 1, len(values))):
            totals[:, lag] += (values[: len(values) - lag] * values[lag:]).sum(0).cpu()
            counts[lag] += len(values) - lag
    lags = totals / counts.clamp(min=1)
    variance = lags[:, :1].clamp(min=1e-8)
    return (_positive(lags / variance * (lags[:, :1] > 0)) * variance).float()


def _factors(autocovariance: Tensor, length: int) -> Tensor:
    """Cholesky factors (K, length, length) of each row's extended covariance."""
    factors = [
        np.linalg.cholesky(toeplitz(extended_autocovariance(row / row[0], length))) * row[0] ** 0.5
        for row in autocovariance.double().cpu().numpy()
    ]
    return torch.from_numpy(np.stack(factors)).float()


def autoregression(lags: np.ndarray) -> np.ndarray:
    """Coefficients (order,) of the Yule–Walker equations for autocovariances (order + 1,)."""
    return solve_toeplitz(lags[:-1], lags[1:])


def extended_autocovariance(lags: np.ndarray, length: int) -> np.ndarray:
    """Autocovariance of the autoregression that fits `lags`, at lags 0 to length − 1."""
    order = len(lags) - 1
    coefficients = autoregression(lags)
    out = list(lags[:length])
    while len(out) < length:
        out.append(float(np.dot(coefficients, out[-1 : -order - 1 : -1])))
    return np.asarray(out)


def _positive(lags: Tensor) -> Tensor:
    """Normalise each row to unit variance and shrink it until it is a covariance."""
    rows = []
    for row in (lags / lags[:, :1].clamp(min=1e-12)).double().numpy().copy():
        row[0] = 1.0
        while np.linalg.eigvalsh(toeplitz(row))[0] < MINIMUM_EIGENVALUE:
            row[1:] *= 0.98
        rows.append(row)
    return torch.from_numpy(np.stack(rows))


def _taper(box: tuple[int, ...]) -> Tensor:
    """Gaussian of the offset's length, in FFT order, (P, Q, R)."""
    axes = [torch.fft.fftfreq(n, 1 / n).square() for n in box]
    distance2 = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    return torch.exp(-distance2 / (2 * TAPER**2))


def _bands(box: tuple[int, ...], count: int) -> Tensor:
    """Band of each spatial frequency (flattened), equal shares of the radius to Nyquist."""
    axes = [torch.fft.fftfreq(n).square() for n in box[:2]] + [torch.fft.rfftfreq(box[2]).square()]
    radius = (axes[0][:, None, None] + axes[1][:, None] + axes[2]).sqrt().flatten()
    return (radius / 0.5 * count).long().clamp(max=count - 1)
