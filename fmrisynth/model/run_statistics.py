"""Reduce a run to what a linear model of its mean needs: sufficient statistics.

The squared error of a response β over all frames is, up to a constant,
tr (β − β̂)ᵀ XᵀV⁻¹X (β − β̂): XᵀV⁻¹X and XᵀV⁻¹Z hold all that the frames say of β.

What is left of a run once Xβ̂ is taken out has no noise along the regressors, and what is left
once a shrunk β is taken out has some of the response. Neither is a sample of the noise. Once a
draw of β from its posterior is taken out, what is left is one: with a flat prior β̂ + e, where e
has the covariance of the estimate's error.

Legend: N frames, K regressors, D latent values of a frame inside the brain.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.linalg import toeplitz

from fmrisynth.model.noise.autocovariance import extended_autocovariance

__all__ = ["draw_evoked", "draw_products", "run_statistics", "whiten"]

SMALLEST_SIZE = 1e-4  # of a direction of the regressors, relative to the largest; less is none


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


def draw_products(
    regressors: np.ndarray, latents: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw XᵀE for noise E that is like a run's own, and independent of XᵀZ.

    E is mixed from what the regressors leave of the run's frames, so that latent values
    fluctuate together as in the run.

    Parameters
    ----------
    regressors : ndarray of shape (N, K)
        Whitened over frames.
    latents : ndarray of shape (N, D)
        Whitened over frames.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (K, D)
        Zero where the regressors leave no frame.
    """
    axes, sizes, mixing = np.linalg.svd(regressors, full_matrices=False)
    used = sizes > SMALLEST_SIZE * max(sizes.max(initial=0.0), 1e-12)
    axes, sizes, mixing = axes[:, used], sizes[used], mixing[used]
    drawn = rng.standard_normal(axes.shape)
    if axes.shape[1] < len(axes):
        drawn -= axes @ (axes.T @ drawn)
        drawn /= np.linalg.norm(drawn, axis=0)
    else:
        drawn[:] = 0.0
    return (mixing.T * sizes) @ (drawn.T @ latents)


def draw_evoked(
    regressors: np.ndarray,
    latents: np.ndarray,
    autocovariance: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw what events evoked in a run from what the run says of it.

    Parameters
    ----------
    regressors : ndarray of shape (N, K)
        Without mean and drift.
    latents : ndarray of shape (N, D)
        Standardised.
    autocovariance : ndarray of shape (L,)
        Of the noise over frames.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (N, D)
        What it leaves of the latents is a sample of the noise, all of it.
    """
    x, z = whiten(autocovariance, regressors, latents)
    products = x.T @ z + draw_products(x, z, rng)
    inverse = np.linalg.pinv(x.T @ x, rcond=SMALLEST_SIZE**2, hermitian=True)
    return regressors @ (inverse @ products)
