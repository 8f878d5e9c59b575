"""Gaussian noise with the colour of the data: stationary in space and time, masked to the brain.

A field with C channels is described by

- a cross-spectrum over space: one Hermitian C × C matrix per spatial frequency,
  from the sample covariance averaged by spatial offset (counting only pairs of
  voxels that both lie in the brain), shrunk by count / (count + 20) and tapered;
- an autoregression over time for each band of spatial frequencies, since coarse
  patterns (networks) change more slowly than fine ones.

Both are cheap at any size: sampling is two FFTs and one triangular product.
Legend: N frames, C channels, X Y Z box, P Q R padded box, F spatial frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.linalg import solve_toeplitz, toeplitz
from torch import Tensor, nn

__all__ = ["StationaryNoise", "WhiteNoise", "autoregression", "extended_autocovariance"]

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
        self.register_buffer("autocovariance", torch.zeros(bands, order + 1))
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
            lags += self._band_products(spectrum)
            counts += (len(field) - torch.arange(self.order + 1)).clamp(min=0)
            frames += len(field)
        assert isinstance(power, Tensor), "at least one run is needed"
        self.transfer.copy_(torch.view_as_real(self._transfer(power / frames)).movedim(-1, 0))
        self.autocovariance.copy_(_positive(lags / counts))
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
        """Mix frames by each band's Cholesky factor; its T × T corner is that of a window of T."""
        n_frames = len(spectrum)
        flat = spectrum.flatten(2)  # N C F
        out = torch.empty_like(flat)
        for band, lags in enumerate(self.autocovariance.double().cpu().numpy()):
            covariance = toeplitz(extended_autocovariance(lags, n_frames))
            factor = torch.from_numpy(np.linalg.cholesky(covariance)).to(flat.real)
            chosen = self._band_of == band
            part = flat[:, :, chosen]
            real = torch.view_as_real(part).flatten(1)
            out[:, :, chosen] = torch.view_as_complex(
                (factor @ real).view(*part.shape, 2).contiguous()
            )
        return out.view_as(spectrum)

    def _band_products(self, spectrum: Tensor) -> Tensor:
        """Sums over frames of products at each lag, by band: (bands, order + 1)."""
        flat = torch.view_as_real(spectrum.flatten(2))  # N C F 2
        sums = []
        for lag in range(self.order + 1):
            if lag >= len(flat):
                sums.append(torch.zeros(flat.shape[2], dtype=torch.float64))
                continue
            product = (flat[: len(flat) - lag] * flat[lag:]).sum(dim=(0, 1, 3))  # F
            sums.append(product.double().cpu())
        by_frequency = torch.stack(sums)  # lags F
        bands = len(self.autocovariance)
        return torch.stack([by_frequency[:, self._band_of == b].sum(1) for b in range(bands)])

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
        root = torch.einsum("...ij,...j,...kj->...ik", vectors, values.sqrt().to(vectors), vectors.conj())
        variance = torch.fft.irfftn((root @ root.mH), s=box, dim=(0, 1, 2))[0, 0, 0].diagonal()
        return root / variance.clamp(min=1e-12).sqrt()[:, None]


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
    for row in (lags / lags[:, :1]).numpy():
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
