"""Fit autocovariances in time to high-pass filtered data, extend them, and factorise them.

Legend: L lags, from 0 to the order of an autoregression; N frames; K rows or regressors.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "NO_DRIFT",
    "autoregression",
    "correlate_in_time",
    "divided_by",
    "extended_autocovariance",
    "factors_in_time",
    "fit_autocovariance",
    "shrink_autocovariance",
    "undo_highpass",
]

MINIMUM_EIGENVALUE = 1e-3  # of the autocovariance, relative to the variance
RESCALED = (0.97, 1.03)  # to the variance that was observed; more is for runs too short to know
FILTER_ITERATIONS = 20  # few: of what the removal took nearly all of, little is known
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
    unit = rows / rows[:, :1]
    factor = np.linalg.cholesky(_toeplitz(unit)) * np.sqrt(rows[:, :1, None])
    coefficients = autoregression(unit)[:, ::-1]  # K L-1, of the earliest frame first
    noise = white.double().cpu().numpy()
    start = min(order, noise.shape[1])
    noise[:, :start] = np.einsum("kij,kj->ki", factor[:, :start, :start], noise[:, :start])
    for t in range(order, noise.shape[1]):
        past = np.einsum("kj,kj->k", coefficients, noise[:, t - order : t])
        noise[:, t] = past + factor[:, -1, -1] * noise[:, t]
    return torch.from_numpy(noise).float()


@lru_cache(maxsize=8)  # every training window asks for the same
def _factors(rows: bytes, shape: tuple[int, int], length: int) -> Tensor:
    lags = np.frombuffer(rows).reshape(shape)
    factors = [
        np.linalg.cholesky(_toeplitz(extended)) * variance**0.5
        for extended, variance in zip(
            extended_autocovariance(lags / lags[:, :1], length), lags[:, 0], strict=True
        )
    ]
    return torch.from_numpy(np.stack(factors)).float()


def autoregression(lags: np.ndarray) -> np.ndarray:
    """Solve the Yule–Walker equations for autocovariances (..., L); coefficients (..., L − 1)."""
    return np.linalg.solve(_toeplitz(lags[..., :-1]), lags[..., 1:, None])[..., 0]


def extended_autocovariance(lags: np.ndarray, length: int) -> np.ndarray:
    """Extend autocovariances (..., L) by their autoregression to lags 0 to length − 1."""
    order = lags.shape[-1] - 1
    latest_last = autoregression(lags)[..., ::-1]
    out = np.empty((*lags.shape[:-1], max(length, order + 1)))
    out[..., : order + 1] = lags
    for lag in range(order + 1, length):
        out[..., lag] = np.einsum("...j,...j->...", latest_last, out[..., lag - order : lag])
    return out[..., :length]


def undo_highpass(lags: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Estimate the autocovariance that a process had before its mean and drift were removed.

    The removal lowers the slowest frequencies; noise with the autocovariance of the
    filtered sample would lose them twice. Solved by fixed-point iteration.

    Parameters
    ----------
    lags : ndarray of shape (..., L)
        Autocovariance observed after the removal.
    basis : ndarray of shape (N, K)
        Orthonormal regressors that were removed from runs of N frames.

    Returns
    -------
    ndarray of shape (..., L)
        Its variance is larger than the observed one.
    """
    length, order = len(basis), lags.shape[-1] - 1
    if not basis.size or length <= order:
        return lags
    seen = _seen_after_removal(basis, order + 1)
    estimate = lags.copy()
    for _ in range(FILTER_ITERATIONS):
        whole = extended_autocovariance(shrink_autocovariance(estimate), length)
        estimate = estimate + (lags - whole @ seen.T)
    estimate = shrink_autocovariance(estimate)
    kept = lags[..., 0] / _variance_left(estimate, basis)
    return estimate * kept.clip(*RESCALED)[..., None]


def _seen_after_removal(basis: np.ndarray, n_lags: int) -> np.ndarray:
    """Compute what a sample of N frames shows of each lag once regressors are removed.

    Returns
    -------
    ndarray of shape (n_lags, N)
        Weight of the process's autocovariance at every lag in the sample's at the first ones:
        with R the removal and T(j) ones at lag ±j, the trace at offset k of R T(j) R over N − k.
        Cached, so not to be changed in place.
    """
    return _weights(basis.astype(np.float64).tobytes(), basis.shape, n_lags)


@lru_cache(maxsize=8)  # the runs of a study have few lengths
def _weights(basis_bytes: bytes, shape: tuple[int, int], n_lags: int) -> np.ndarray:
    basis, length = np.frombuffer(basis_bytes).reshape(shape), shape[0]
    remover = np.eye(length) - basis @ basis.T
    weights = np.zeros((n_lags, length))
    for k in range(n_lags):
        pairs = remover[: length - k].T @ remover[k:]  # of frames of the process
        for j in range(length):
            both = np.trace(pairs, j) + (np.trace(pairs, -j) if j else 0.0)
            weights[k, j] = both / (length - k)
    return weights


def shrink_autocovariance(lags: np.ndarray) -> np.ndarray:
    """Shrink autocovariances (..., L) towards white noise until they are positive definite."""
    rows = lags.reshape(-1, lags.shape[-1]).copy()
    left = np.arange(len(rows))
    while len(left):
        smallest = np.linalg.eigvalsh(_toeplitz(rows[left]))[:, 0]
        left = left[smallest < MINIMUM_EIGENVALUE * rows[left, 0]]
        rows[left, 1:] *= 0.98
    return rows.reshape(lags.shape)


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
    return torch.from_numpy(undo_highpass(shrink_autocovariance(scaled), basis))


def divided_by(rows: Tensor, agreement: Tensor, removed: np.ndarray) -> Tensor:
    """Divide autocovariances by the autocorrelation of what multiplies their process.

    Parameters
    ----------
    rows : Tensor of shape (..., L)
        Autocovariances.
    agreement : Tensor of at least L values
        1 at lag 0.
    removed : ndarray of shape (N, K)
        Orthonormal: mean and drift, which runs are without.

    Returns
    -------
    Tensor of shape (..., L)
        Positive definite; runs have the variance that they had, without mean and drift.
    """
    lags = rows.double().cpu().numpy()
    scale = np.maximum(lags[..., :1], 1e-12)
    before = lags / scale
    after = shrink_autocovariance(before / agreement[: lags.shape[-1]].double().cpu().numpy())
    kept = _variance_left(before, removed) / _variance_left(after, removed)
    return torch.from_numpy(after * scale * kept[..., None]).to(rows)


def _variance_left(lags: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Compute the variance (...) that removal leaves of autocovariances (..., L)."""
    length = len(removed)
    if not removed.size or length < lags.shape[-1]:
        return lags[..., 0]
    seen = _seen_after_removal(removed, lags.shape[-1])[0]
    return extended_autocovariance(lags, length) @ seen


def _toeplitz(lags: np.ndarray) -> np.ndarray:
    """Arrange lags (..., L) as symmetric Toeplitz matrices (..., L, L)."""
    index = np.arange(lags.shape[-1])
    return lags[..., np.abs(index[:, None] - index)]
