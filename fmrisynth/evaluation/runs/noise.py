"""Measure the time series themselves: their level, autocorrelation, smoothness and spectrum.

Functions take drift-free percent signal change, or what `standardised` makes of it where its
scale does not matter, so that a run is standardised once. Legend: V voxels of the mask, T volumes.
"""

from __future__ import annotations

import numpy as np

from fmrisynth.bids.pieces import VOXELS_AT_ONCE, slices
from fmrisynth.preprocess.smoothness import fwhm_of_correlation, neighbours

__all__ = [
    "N_LAGS",
    "as_shares",
    "autocorrelation",
    "band_power",
    "band_quarters",
    "frame_peak",
    "level_sd",
    "log_kurtosis",
    "power_spectrum",
    "smoothness_fwhm",
    "standardised",
    "temporal_sd",
]

N_LAGS = 5
"""Number of lags of the autocorrelation that are reported."""

_SPECTRUM_BINS = 24
_WINDOW = 20.0  # s
_MAX_PAIRS = 40_000


def temporal_sd(signal: np.ndarray) -> np.ndarray:
    """Voxelwise temporal standard deviation.

    Parameters
    ----------
    signal : ndarray of shape (V, T)
        Drift-free percent signal change.

    Returns
    -------
    ndarray of shape (V,)
        Standard deviation, in percent signal change.
    """
    sd = np.empty(len(signal))
    for part in slices(len(signal)):
        sd[part] = signal[part].std(axis=1, dtype=np.float64)
    return sd


def autocorrelation(z: np.ndarray, n_lags: int = N_LAGS) -> np.ndarray:
    """Mean over voxels of the temporal autocorrelation.

    Parameters
    ----------
    z : ndarray of shape (V, T)
        From `standardised`.
    n_lags : int
        Number of lags, in volumes.

    Returns
    -------
    ndarray of shape (n_lags,)
        Mean autocorrelation at lags 1 … ``n_lags`` (NaN for lags the run is too short for).
    """
    n_volumes = z.shape[1]
    lags = np.full(n_lags, np.nan)
    for lag in range(1, min(n_lags, n_volumes - 1) + 1):
        # z has unit norm, so the sum of products is the autocorrelation.
        lags[lag - 1] = np.einsum("vt,vt->", z[:, lag:], z[:, :-lag], dtype=np.float64) / len(z)
    return lags


def log_kurtosis(z: np.ndarray) -> float:
    """Mean over voxels of the logarithm of the kurtosis over time; that of a Gaussian is ln 3.

    Parameters
    ----------
    z : ndarray of shape (V, T)
        From `standardised`, of what the modelled response leaves.

    Returns
    -------
    float
        Constant voxels are left out; NaN where all are.
    """
    z = z[np.any(z, axis=1)]
    if not len(z):
        return float("nan")
    squared = z * z
    fourth = np.einsum("vt,vt->v", squared, squared, dtype=np.float64)
    return float(np.mean(np.log(z.shape[1] * fourth)))


def frame_peak(z: np.ndarray) -> float:
    """Energy of the strongest volume over that of the median one, voxels scaled alike.

    Parameters
    ----------
    z : ndarray of shape (V, T)
        From `standardised`, of what the modelled response leaves.
    """
    energy = np.einsum("vt,vt->t", z, z, dtype=np.float64)
    return float(energy.max() / max(np.median(energy), np.finfo(float).tiny))


def level_sd(signal: np.ndarray, t_r: float) -> float:
    """Compute the SD over windows of 20 s of the mean log standard deviation of the voxels.

    Parameters
    ----------
    signal : ndarray of shape (V, T)
        Drift-free percent signal change, without the modelled response.
    t_r : float
        Repetition time, in s.

    Returns
    -------
    float
        0 for noise whose level never changes, but for chance; NaN with fewer than two windows.
    """
    in_window = max(4, round(_WINDOW / t_r))
    n_windows = signal.shape[1] // in_window
    if n_windows < 2:
        return float("nan")
    total, number = np.zeros(n_windows), 0
    for part in slices(len(signal)):
        series = signal[part]
        varying = series[(series != series[:, :1]).any(axis=1), : n_windows * in_window]
        windows = varying.reshape(len(varying), n_windows, in_window)
        total += np.log(windows.std(axis=2) + 1e-6).sum(axis=0, dtype=np.float64)
        number += len(varying)
    return float((total / number).std()) if number else float("nan")


def power_spectrum(z: np.ndarray) -> np.ndarray:
    """Share of the power along the band from 0 to the Nyquist frequency.

    Parameters
    ----------
    z : ndarray of shape (V, T)
        From `standardised`.

    Returns
    -------
    ndarray of shape (24,)
        Mean power of equal slices of the band, summing to 1, so that runs of
        any length and repetition time can be averaged.
    """
    return as_shares(band_power(z))


def band_power(z: np.ndarray) -> np.ndarray:
    """Add up the power of voxels, each of unit norm, in equal slices of the band.

    Parameters
    ----------
    z : ndarray of shape (V, T)
        From `standardised`; V may be 0.

    Returns
    -------
    ndarray of shape (24,)
    """
    power = np.zeros(z.shape[1] // 2)
    for chunk in np.array_split(z, max(1, len(z) // VOXELS_AT_ONCE)):
        waves = np.fft.rfft(chunk, axis=1)[:, 1 : len(power) + 1]
        power += (waves.real**2 + waves.imag**2).sum(axis=0)
    edges = np.linspace(0.0, len(power), _SPECTRUM_BINS + 1)
    cumulative = np.concatenate([[0.0], np.cumsum(power)])
    return np.diff(np.interp(edges, np.arange(len(power) + 1), cumulative))


def as_shares(power: np.ndarray) -> np.ndarray:
    """Divide the power of slices (24,) by their sum; all zero where there is none."""
    return power / max(power.sum(), np.finfo(float).tiny)


def band_quarters(spectrum: np.ndarray) -> np.ndarray:
    """Share of the power in each quarter of the band.

    Parameters
    ----------
    spectrum : ndarray of shape (24,)
        From `power_spectrum`.

    Returns
    -------
    ndarray of shape (4,)
    """
    return spectrum.reshape(4, -1).sum(axis=1)


def smoothness_fwhm(z: np.ndarray, mask: np.ndarray, voxel_sizes: np.ndarray) -> np.ndarray:
    """Spatial smoothness from the correlation of neighbouring voxels.

    The estimator is that of Forman et al. (1995), also AFNI's classic 3dFWHMx:
    for noise of Gaussian autocorrelation and neighbour correlation ``r`` at
    distance ``d``, ``FWHM = d · sqrt(−2 ln 2 / ln r)``.

    Parameters
    ----------
    z : ndarray of shape (V, T)
        From `standardised`, of the mask's voxels in C order.
    mask : ndarray of bool of shape (X, Y, Z)
        Mask with ``V`` voxels.
    voxel_sizes : ndarray of shape (3,)
        Voxel sizes, in mm.

    Returns
    -------
    ndarray of shape (3,)
        FWHM along each axis, in mm; 0 where neighbours are not correlated,
        NaN where no voxel has a neighbour.
    """
    rng = np.random.default_rng(0)  # a fixed subset of pairs: the measure must not depend on a seed
    fwhm = np.full(3, np.nan)
    for axis in range(3):
        near, far = neighbours(mask, axis)
        if near.size == 0:
            continue
        if near.size > _MAX_PAIRS:
            chosen = np.sort(rng.choice(near.size, _MAX_PAIRS, replace=False))
            near, far = near[chosen], far[chosen]
        total = 0.0
        for pair in slices(near.size):
            total += np.einsum("vt,vt->", z[near[pair]], z[far[pair]], dtype=np.float64)
        correlation = float(total / near.size)
        correlation = min(correlation, 1.0 - 1e-9)
        edge = float(voxel_sizes[axis])
        fwhm[axis] = fwhm_of_correlation(correlation, edge)
    return fwhm


def standardised(signal: np.ndarray) -> np.ndarray:
    """Centre each voxel's series (V, T) and scale it to unit norm; constant voxels stay zero."""
    z = np.empty_like(signal)
    for part in slices(len(signal)):
        centred = signal[part] - signal[part].mean(axis=1, keepdims=True)
        norm = np.sqrt(np.einsum("vt,vt->v", centred, centred))
        z[part] = centred / np.where(norm > 0, norm, 1.0)[:, None]
    return z
