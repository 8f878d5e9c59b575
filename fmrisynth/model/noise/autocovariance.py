"""Autocovariances in time: estimated under a high-pass filter, extended, and factorised."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.linalg import solve_toeplitz, toeplitz
from torch import Tensor

__all__ = [
    "NO_DRIFT",
    "autoregression",
    "colour",
    "extended_autocovariance",
    "factors_in_time",
    "unfiltered",
]

MINIMUM_EIGENVALUE = 1e-3  # of the autocovariance, relative to the variance
FILTER_ITERATIONS = 20
NO_DRIFT = np.zeros((0, 0))  # basis of what is taken out where nothing is


def factors_in_time(autocovariance: Tensor, length: int) -> Tensor:
    """Cholesky factors of each row's covariance over time.

    Parameters
    ----------
    autocovariance : torch.Tensor
        (K, order + 1).
    length : int
        Frames N.

    Returns
    -------
    torch.Tensor
        (K, N, N) float32 on the CPU; not to be changed, since it is kept for the next call.
    """
    rows = autocovariance.double().cpu().numpy()
    return _factors(rows.tobytes(), rows.shape, length)


@lru_cache(maxsize=8)  # every window of a training asks for the same
def _factors(rows: bytes, shape: tuple[int, int], length: int) -> Tensor:
    factors = [
        np.linalg.cholesky(toeplitz(extended_autocovariance(row / row[0], length))) * row[0] ** 0.5
        for row in np.frombuffer(rows).reshape(shape)
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


def unfiltered(lags: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Autocovariance of the process that has given `lags` once its drift is taken out.

    Taking out mean and drift removes what is slowest; noise with the sample's
    own autocovariance would lose that twice. Solved by fixed-point iteration.

    Parameters
    ----------
    lags : numpy.ndarray
        (order + 1,) autocovariance observed after the drift was removed.
    basis : numpy.ndarray
        (N, K) orthonormal, what was removed from runs of N frames.

    Returns
    -------
    numpy.ndarray
        (order + 1,); its variance is larger than the observed one.
    """
    length, order = len(basis), len(lags) - 1
    if not basis.size or length <= order:
        return lags
    remover = np.eye(length) - basis @ basis.T
    estimate = lags.copy()
    for _ in range(FILTER_ITERATIONS):
        covariance = toeplitz(extended_autocovariance(_shrunk(estimate), length))
        implied = remover @ covariance @ remover
        means = [np.trace(implied, offset) / (length - offset) for offset in range(order + 1)]
        estimate = estimate + (lags - np.array(means))
    return _shrunk(estimate)


def _shrunk(lags: np.ndarray) -> np.ndarray:
    """Shrink an autocovariance towards white noise until it is positive definite."""
    out = lags.copy()
    while np.linalg.eigvalsh(toeplitz(out))[0] < MINIMUM_EIGENVALUE * out[0]:
        out[1:] *= 0.98
    return out


def colour(lags: Tensor, basis: np.ndarray) -> Tensor:
    """Rows of observed lags to unit observed variance, positive, with the drift put back.

    Parameters
    ----------
    lags : torch.Tensor
        (K, order + 1) observed autocovariances.
    basis : numpy.ndarray
        As for `unfiltered`.

    Returns
    -------
    torch.Tensor
        (K, order + 1) float64; lag 0 is the variance that one of 1 is left of.
    """
    scaled = (lags / lags[:, :1].clamp(min=1e-12)).double().cpu().numpy()
    scaled[:, 0] = 1.0
    return torch.from_numpy(np.stack([unfiltered(_shrunk(row), basis) for row in scaled]))
