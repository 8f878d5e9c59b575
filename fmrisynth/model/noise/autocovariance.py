"""Fit autocovariances in time to high-pass filtered data, extend them, and factorise them.

Legend: L lags, from 0 to the order of an autoregression; N frames; K rows or regressors.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.linalg import solve_toeplitz, toeplitz
from torch import Tensor

__all__ = [
    "NO_DRIFT",
    "autoregression",
    "correlate_in_time",
    "extended_autocovariance",
    "factors_in_time",
    "fit_autocovariance",
    "shrink_autocovariance",
    "undo_highpass",
]

MINIMUM_EIGENVALUE = 1e-3  # of the autocovariance, relative to the variance
FILTER_ITERATIONS = 20
NO_DRIFT = np.zeros((0, 0))  # basis of the removed regressors where none are removed


def factors_in_time(autocovariance: Tensor, length: int) -> Tensor:
    """Factorise the covariance over time of each row, by Cholesky.

    Parameters
    ----------
    autocovariance : Tensor of shape (K, L)
        Autocovariance of each row.
    length : int
        Frames N.

    Returns
    -------
    Tensor of shape (K, N, N)
        Lower triangular, float32, on the CPU; cached, so not to be changed in place.
    """
    rows = autocovariance.double().cpu().numpy()
    return _factors(rows.tobytes(), rows.shape, length)


def correlate_in_time(autocovariance: Tensor, white: Tensor) -> Tensor:
    """Give white noise an autocovariance, row by row: `factors_in_time` times white noise.

    The factor of an autoregression need not be formed: each frame follows from those before it.

    Parameters
    ----------
    autocovariance : Tensor of shape (K, L)
        Autocovariance of each row.
    white : Tensor of shape (K, N)
        Independent, of unit variance.

    Returns
    -------
    Tensor of shape (K, N)
        float32, on the CPU.
    """
    rows = autocovariance.double().cpu().numpy()
    order = rows.shape[1] - 1
    index = np.abs(np.subtract.outer(np.arange(order + 1), np.arange(order + 1)))
    covariance = (rows / rows[:, :1])[:, index]  # K L L
    factor = np.linalg.cholesky(covariance) * np.sqrt(rows[:, :1, None])
    coefficients = np.linalg.solve(covariance[:, :-1, :-1], covariance[:, :-1, -1:])[
        ..., 0
    ]  # K L-1, of the earliest frame first
    noise = white.double().cpu().numpy()
    start = min(order, noise.shape[1])
    noise[:, :start] = np.einsum("kij,kj->ki", factor[:, :start, :start], noise[:, :start])
    for t in range(order, noise.shape[1]):
        past = np.einsum("kj,kj->k", coefficients, noise[:, t - order : t])
        noise[:, t] = past + factor[:, -1, -1] * noise[:, t]
    return torch.from_numpy(noise).float()


@lru_cache(maxsize=8)  # every training window asks for the same
def _factors(rows: bytes, shape: tuple[int, int], length: int) -> Tensor:
    factors = [
        np.linalg.cholesky(toeplitz(extended_autocovariance(row / row[0], length))) * row[0] ** 0.5
        for row in np.frombuffer(rows).reshape(shape)
    ]
    return torch.from_numpy(np.stack(factors)).float()


def autoregression(lags: np.ndarray) -> np.ndarray:
    """Solve the Yule–Walker equations for autocovariances (L,); coefficients (L − 1,)."""
    return solve_toeplitz(lags[:-1], lags[1:])


def extended_autocovariance(lags: np.ndarray, length: int) -> np.ndarray:
    """Extend an autocovariance (L,) by its autoregression to lags 0 to length − 1."""
    order = len(lags) - 1
    coefficients = autoregression(lags)
    out = list(lags[:length])
    while len(out) < length:
        out.append(float(np.dot(coefficients, out[-1 : -order - 1 : -1])))
    return np.asarray(out)


def undo_highpass(lags: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Estimate the autocovariance that a process had before its mean and drift were removed.

    The removal lowers the slowest frequencies; noise with the autocovariance of the
    filtered sample would lose them twice. Solved by fixed-point iteration.

    Parameters
    ----------
    lags : ndarray of shape (L,)
        Autocovariance observed after the removal.
    basis : ndarray of shape (N, K)
        Orthonormal regressors that were removed from runs of N frames.

    Returns
    -------
    ndarray of shape (L,)
        Its variance is larger than the observed one.
    """
    length, order = len(basis), len(lags) - 1
    if not basis.size or length <= order:
        return lags
    remover = np.eye(length) - basis @ basis.T
    estimate = lags.copy()
    for _ in range(FILTER_ITERATIONS):
        covariance = toeplitz(extended_autocovariance(shrink_autocovariance(estimate), length))
        implied = remover @ covariance @ remover
        means = [np.trace(implied, offset) / (length - offset) for offset in range(order + 1)]
        estimate = estimate + (lags - np.array(means))
    return shrink_autocovariance(estimate)


def shrink_autocovariance(lags: np.ndarray) -> np.ndarray:
    """Shrink an autocovariance towards white noise until it is positive definite."""
    out = lags.copy()
    while np.linalg.eigvalsh(toeplitz(out))[0] < MINIMUM_EIGENVALUE * out[0]:
        out[1:] *= 0.98
    return out


def fit_autocovariance(lags: Tensor, basis: np.ndarray) -> Tensor:
    """Fit the autocovariance of a process to each row observed under a high-pass filter.

    Each row is scaled to unit variance, made positive definite, and freed of the filter's
    effect by `undo_highpass`.

    Parameters
    ----------
    lags : Tensor of shape (K, L)
        Observed autocovariances.
    basis : ndarray of shape (N, K)
        As for `undo_highpass`.

    Returns
    -------
    Tensor of shape (K, L)
        float64; lag 0 is the variance before the filter where it is 1 after it.
    """
    scaled = (lags / lags[:, :1].clamp(min=1e-12)).double().cpu().numpy()
    scaled[:, 0] = 1.0
    return torch.from_numpy(
        np.stack([undo_highpass(shrink_autocovariance(row), basis) for row in scaled])
    )
