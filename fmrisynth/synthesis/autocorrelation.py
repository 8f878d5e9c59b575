"""Give synthetic voxels the memory and the neighbours of real ones, by the decoder noise.

Most of a voxel's variance is noise of its own, whose memory differs between participants by
more than that of networks does: motion and physiology are slow or fast.

Legend: N frames, V voxels, K regressors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import orth, toeplitz

from fmrisynth.model.decoder_noise import LARGEST_CORRELATION
from fmrisynth.preprocess.carrier import least_squares
from fmrisynth.preprocess.smoothness import (
    correlation_of_fwhm,
    fwhm_of_correlation,
    neighbours,
)

__all__ = [
    "add_neighbours",
    "autoregressive",
    "decoder_lag1",
    "decoder_neighbours",
    "voxel_fwhm",
    "voxel_lag1",
]

VOXELS = 4096  # spread over the brain, which are enough for a mean
PIECE = 2**15  # float32 that fit into the cache twice
LIMITS, CANDIDATES = (-0.3, 0.95), 26


def autoregressive(shape: tuple[int, ...], lag1: float, generator: torch.Generator) -> np.ndarray:
    """Draw AR(1) noise of unit variance along the first axis, (N, V) float32."""
    noise = torch.randn(shape, generator=generator).numpy()
    innovation = np.float32((1 - lag1**2) ** 0.5)
    for t in range(1, len(noise)):
        noise[t] = np.float32(lag1) * noise[t - 1] + innovation * noise[t]
    return noise


def voxel_lag1(series: np.ndarray, regressors: np.ndarray) -> float:
    """Average the lag-1 autocorrelation of what evoked responses leave over voxels.

    Parameters
    ----------
    series : ndarray of shape (N, V)
        Without mean and drift.
    regressors : ndarray of shape (N, K)
        Of the evoked responses.
    """
    rest = least_squares(regressors, _spread(series))[0]
    power = np.square(rest).sum(0)
    lagged = (rest[1:] * rest[:-1]).sum(0)
    known = power > 0
    return float(np.mean(lagged[known] / power[known])) if known.any() else 0.0


def voxel_fwhm(
    series: np.ndarray, regressors: np.ndarray, brain: np.ndarray, edges: np.ndarray
) -> tuple[float, float, float]:
    """Measure the smoothness of what evoked responses leave, along each axis.

    Parameters
    ----------
    series : ndarray of shape (N, V)
        Without mean and drift.
    regressors : ndarray of shape (N, K)
        Of the evoked responses.
    brain : ndarray of shape (X, Y, Z), bool
        The voxels.
    edges : ndarray of shape (3,)
        Of a voxel, mm.

    Returns
    -------
    tuple of three float
        FWHM, mm; 0 where neighbours are not correlated, or there are none.
    """
    fwhm = []
    for axis in range(3):
        near, far = _pairs(brain, axis)
        first, second = (least_squares(regressors, series[:, v])[0] for v in (near, far))
        power = np.sqrt(np.square(first).sum(0) * np.square(second).sum(0))
        known = power > 0
        products = (first * second).sum(0)[known] / power[known]
        correlation = min(float(products.mean()), 1 - 1e-6) if known.any() else 0.0
        fwhm.append(fwhm_of_correlation(correlation, float(edges[axis])))
    return fwhm[0], fwhm[1], fwhm[2]


def decoder_neighbours(
    wanted: Sequence[float],
    decoded: np.ndarray,
    deviation: np.ndarray,
    regressors: np.ndarray,
    brain: np.ndarray,
    edges: np.ndarray,
) -> list[float]:
    """Choose the correlation of neighbours in decoder noise such that a run is as smooth as wanted.

    Parameters
    ----------
    wanted : sequence of three float
        FWHM along each axis, mm, as `voxel_fwhm` measures it.
    decoded, deviation, regressors
        As for `decoder_lag1`.
    brain : ndarray of shape (X, Y, Z), bool
        The voxels.
    edges : ndarray of shape (3,)
        Of a voxel, mm.

    Returns
    -------
    list of three float
        For `add_neighbours`.
    """
    chosen = []
    for axis in range(3):
        near, far = _pairs(brain, axis)
        (first, used), (second, _) = (least_squares(regressors, decoded[:, v]) for v in (near, far))
        freedom = max(1, len(decoded) - used)
        one, other = (
            np.square(rest).sum(0) / freedom + np.square(deviation[v])
            for rest, v in ((first, near), (second, far))
        )
        total = np.maximum(np.sqrt(one * other), 1e-9)
        shared = float(np.mean((first * second).sum(0) / freedom / total)) if near.size else 0.0
        share = float(np.mean(deviation[near] * deviation[far] / total)) if near.size else 0.0
        missing = correlation_of_fwhm(wanted[axis], float(edges[axis])) - shared
        correlation = missing / share if share > 1e-3 else 0.0
        chosen.append(float(np.clip(correlation, -LARGEST_CORRELATION, LARGEST_CORRELATION)))
    return chosen


def decoder_lag1(
    wanted: float,
    decoded: np.ndarray,
    deviation: np.ndarray,
    regressors: np.ndarray,
    removed: np.ndarray,
    agreement: float = 1.0,
) -> float:
    """Choose the lag-1 autocorrelation of decoder noise such that voxels reach a mean.

    Parameters
    ----------
    wanted : float
        Mean lag-1 autocorrelation of voxels, as `voxel_lag1` measures it.
    decoded : ndarray of shape (N, V)
        What the decoder noise is added to.
    deviation : ndarray of shape (V,)
        Standard deviation of the decoder noise, in the units of `decoded`.
    regressors : ndarray of shape (N, K)
        Of the evoked responses, which are not the noise's.
    removed : ndarray of shape (N, K)
        Orthonormal: mean and drift, which are taken out of the sum.
    agreement : float
        Mean product of the intensities of successive frames over their mean square, by which
        the noise is multiplied.

    Returns
    -------
    float
        Of a first-order autoregression, before mean and drift are taken out.
    """
    some = _spread(decoded)
    rest, used = least_squares(regressors, some - removed @ (removed.T @ some))
    freedom = max(1, len(rest) - used - 1)
    variance = np.square(_spread(deviation[None])[0])
    power = np.square(rest).sum(0) / freedom
    lagged = (rest[1:] * rest[:-1]).sum(0) / freedom
    total = np.maximum(power + variance, 1e-9)
    share = float(np.mean(variance / total))
    if share < 1e-3:
        return 0.0
    missing = wanted - float(np.mean(lagged / total))
    # evoked responses take slow noise with them where memory is measured
    taken = orth(np.concatenate([removed, regressors - removed @ (removed.T @ regressors)], 1))
    return _before_filter(missing / share / max(agreement, 0.1), taken)


def _before_filter(lag1: float, removed: np.ndarray) -> float:
    """Find the autoregression that has a lag-1 autocorrelation once regressors are removed."""
    candidates = np.linspace(*LIMITS, CANDIDATES)
    lags = np.arange(len(removed))
    seen = []
    for candidate in candidates:
        covariance = toeplitz(candidate**lags)
        half = removed.T @ covariance  # the removal is 1 − B Bᵀ on both sides
        inner = removed @ (half @ removed)
        rest = [
            np.trace(covariance, k)
            - 2 * np.einsum("nk,kn->", removed[: len(lags) - k], half[:, k:])
            + np.einsum("nk,nk->", inner[: len(lags) - k], removed[k:])
            for k in (0, 1)
        ]
        seen.append(rest[1] / rest[0])
    return float(np.interp(lag1, seen, candidates))


def add_neighbours(noise: np.ndarray, brain: np.ndarray, correlation: Sequence[float]) -> None:
    """Correlate white noise (N, V) between neighbouring voxels, in place, at unit variance.

    Along each axis a share b of the neighbour is added: b / (1 + b²) is the correlation. What an
    autoencoder loses is what neighbours do not share, so that it is negative.

    Parameters
    ----------
    noise : ndarray of shape (N, V)
        White in space, float32.
    brain : ndarray of shape (X, Y, Z), bool
        The voxels.
    correlation : sequence of float
        Of neighbours along each axis, within ± `LARGEST_CORRELATION`.
    """
    # the root of r b² − b + r = 0 that is smaller than one
    shares = [(1 - (1 - 4 * r**2) ** 0.5) / (2 * r) if r else 0.0 for r in correlation]
    places, strides = _padded_places(brain)
    volume = np.zeros(int(places[-1]) + sum(strides) + 1, np.float32)
    variance, spare = volume.copy(), np.empty(PIECE, np.float32)
    variance[places] = 1
    for share, stride in zip(shares, strides, strict=True):
        _add_shifted(variance, share**2, stride, spare)
    scale = np.sqrt(variance[places])
    for frame in noise:
        volume[:] = 0
        volume[places] = frame
        for share, stride in zip(shares, strides, strict=True):
            _add_shifted(volume, share, stride, spare)
        np.divide(volume[places], scale, out=frame)


def _padded_places(brain: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Find the brain's voxels in a line: its box, with an empty plane behind each axis' last.

    What is moved by an axis' stride then never comes to another line of voxels.
    """
    low = [int(np.flatnonzero(brain.any(axis=other))[0]) for other in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (index - first for index, first in zip(np.nonzero(brain), low, strict=True))
    strides = (int(y.max() + 2) * int(z.max() + 2), int(z.max() + 2), 1)
    return x * strides[0] + y * strides[1] + z, strides


def _add_shifted(line: np.ndarray, share: float, stride: int, spare: np.ndarray) -> None:
    """Add to each value a share of the one a stride before it, in place, from the end."""
    if not share:
        return
    for stop in range(len(line), stride, -len(spare)):
        start = max(stop - len(spare), stride)
        moved = spare[: stop - start]
        np.multiply(line[start - stride : stop - stride], np.float32(share), out=moved)
        line[start:stop] += moved


def _pairs(brain: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Take some pairs of neighbours, spread evenly over the brain."""
    near, far = neighbours(brain, axis)
    step = max(1, near.size // VOXELS)
    return near[::step], far[::step]


def _spread(series: np.ndarray) -> np.ndarray:
    """Take some of the voxels (N, V), spread evenly."""
    return series[:, :: max(1, series.shape[1] // VOXELS)]
