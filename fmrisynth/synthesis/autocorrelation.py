"""Give synthetic voxels the memory of real ones: choose the decoder noise's autocorrelation.

Most of a voxel's variance is noise of its own, whose memory differs between participants by
more than that of networks does: motion and physiology are slow or fast.

Legend: N frames, V voxels, K regressors.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import toeplitz

from fmrisynth.preprocess.carrier import least_squares

__all__ = ["decoder_lag1", "voxel_lag1"]

VOXELS = 4096  # spread over the brain, which are enough for a mean
LIMITS, CANDIDATES = (-0.3, 0.95), 26


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


def decoder_lag1(
    wanted: float,
    decoded: np.ndarray,
    deviation: np.ndarray,
    regressors: np.ndarray,
    removed: np.ndarray,
) -> float:
    """Choose the lag-1 autocorrelation of decoder noise such that voxels reach a mean.

    Parameters
    ----------
    wanted : float
        Mean lag-1 autocorrelation of voxels, as `voxel_lag1` measures it.
    decoded : ndarray of shape (N, V)
        What the decoder noise is added to, without mean and drift.
    deviation : ndarray of shape (V,)
        Standard deviation of the decoder noise, in the units of `decoded`.
    regressors : ndarray of shape (N, K)
        Of the evoked responses, which are not the noise's.
    removed : ndarray of shape (N, K)
        Orthonormal: mean and drift, which are taken out of the sum.

    Returns
    -------
    float
        Of a first-order autoregression, before mean and drift are taken out.
    """
    rest, used = least_squares(regressors, _spread(decoded))
    freedom = max(1, len(rest) - used - 1)
    variance = np.square(_spread(deviation[None])[0])
    power = np.square(rest).sum(0) / freedom
    lagged = (rest[1:] * rest[:-1]).sum(0) / freedom
    total = np.maximum(power + variance, 1e-9)
    share = float(np.mean(variance / total))
    if share < 1e-3:
        return 0.0
    missing = wanted - float(np.mean(lagged / total))
    return _before_filter(missing / share, removed)


def _before_filter(lag1: float, removed: np.ndarray) -> float:
    """Find the autoregression that has a lag-1 autocorrelation once mean and drift are removed."""
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


def _spread(series: np.ndarray) -> np.ndarray:
    """Take some of the voxels (N, V), spread evenly."""
    return series[:, :: max(1, series.shape[1] // VOXELS)]
