"""Reduce a run to what a linear model of its mean needs: sufficient statistics.

The squared error of a response β over all frames is, up to a constant,
tr (β − β̂)ᵀ XᵀV⁻¹X (β − β̂): XᵀV⁻¹X and XᵀV⁻¹Z hold all that the frames say of β.

Legend: N frames, K regressors, D latent values of a frame inside the brain.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.linalg import toeplitz

from fmrisynth.model.noise.autocovariance import extended_autocovariance

__all__ = ["run_statistics", "whiten"]


def whiten(autocovariance: np.ndarray, *series: np.ndarray) -> tuple[np.ndarray, ...]:
    """Multiply series (N, …) by V^(−1/2), with V the covariance of the noise over frames.

    Parameters
    ----------
    autocovariance : ndarray of shape (L,)
        Of the noise; longer lags follow from its autoregression.
    """
    lags = np.asarray(autocovariance, np.float64)
    white = _whitener(lags.tobytes(), len(series[0]))
    return tuple(white @ values for values in series)


@lru_cache(maxsize=4)
def _whitener(autocovariance: bytes, n_frames: int) -> np.ndarray:
    covariance = toeplitz(extended_autocovariance(np.frombuffer(autocovariance), n_frames))
    return np.linalg.inv(np.linalg.cholesky(covariance))


def run_statistics(
    regressors: np.ndarray, latents: np.ndarray, level: np.ndarray, autocovariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the sufficient statistics of a run.

    Parameters
    ----------
    regressors : ndarray of shape (N, K)
        Without mean and drift.
    latents : ndarray of shape (N, D)
        Standardised.
    level : ndarray
        Noise level of the run inside the brain.
    autocovariance : ndarray of shape (L,)
        Of the noise over frames.

    Returns
    -------
    moments : ndarray of shape (K, K)
        XᵀV⁻¹X / level².
    products : ndarray of shape (K, D)
        XᵀV⁻¹Z / level².
    """
    x, z = whiten(autocovariance, regressors, latents)
    power = float(np.mean(np.square(level)))
    return x.T @ x / power, x.T @ z / power
