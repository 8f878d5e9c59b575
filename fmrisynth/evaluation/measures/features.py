"""Measure what a classifier may tell runs by, and how coupling changes in time and with the task.

Legend: B supervoxels, N parcels, T volumes, E pairs of parcels, W windows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.cluster import KMeans

from fmrisynth.evaluation.cohort.supervoxels import residual_series, supervoxel_sd, whole_series
from fmrisynth.evaluation.measures.correlation import cross_correlation
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = [
    "FEATURES",
    "compact_parcels",
    "dynamic_connectivity",
    "modulation",
    "parcel_series",
    "run_features",
]

FEATURES = ("connectivity", "lags", "log SD", "SD ratio", "tails")
"""Kinds of features: Fisher z of pairs of parcels; autocorrelation at lags 1 to 3; log standard
deviation; standard deviation of a parcel's mean over the mean of its voxels'; log kurtosis, and
the standard deviation over windows of the log standard deviation."""

N_PARCELS = 80
_WINDOW = 20.0  # s, of levels
_LONG_WINDOW = 40.0  # s, of connectivity
_TINY = 1e-6


def compact_parcels(keys: np.ndarray, n_parcels: int = N_PARCELS) -> np.ndarray:
    """Divide supervoxels into parcels by their places alone (k-means).

    Parameters
    ----------
    keys : ndarray of int of shape (B, 3)
        Places of the supervoxels.
    n_parcels : int
        Number of parcels; fewer where there are fewer than four supervoxels for each.

    Returns
    -------
    ndarray of int of shape (B,)
        Parcel of each supervoxel.
    """
    n = max(1, min(n_parcels, len(keys) // 4))
    return KMeans(n, n_init=1, random_state=0).fit_predict(keys.astype(np.float64))


def parcel_series(series: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average the series of the supervoxels (B, T) within parcels: (N, T)."""
    average = np.zeros((labels.max() + 1, len(labels)))
    average[labels, np.arange(len(labels))] = 1.0
    return average / average.sum(axis=1, keepdims=True) @ series.astype(np.float64)


def run_features(record: RunRecord, keys: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Measure one run, with what its events evoke.

    Parameters
    ----------
    record : RunRecord
        Summary of the run.
    keys : ndarray of int of shape (B, 3)
        Supervoxels.
    labels : ndarray of int of shape (B,)
        Parcel of each.

    Returns
    -------
    dict
        Name as in `FEATURES` → vector.
    """
    mean = parcel_series(whole_series(record, keys), labels)
    mean -= mean.mean(axis=1, keepdims=True)
    deviation = np.maximum(mean.std(axis=1), _TINY)
    power = np.maximum(np.square(mean).sum(axis=1), _TINY)
    lags = [(mean[:, lag:] * mean[:, :-lag]).sum(axis=1) / power for lag in (1, 2, 3)]
    voxels = parcel_series(supervoxel_sd(record, keys)[:, None], labels)[:, 0]
    scaled = mean / deviation[:, None]
    windows = np.log(_windowed(scaled, _WINDOW / record.run.t_r, 4).std(axis=2) + _TINY)
    return {
        "connectivity": fisher_z(mean),
        "lags": np.concatenate(lags),
        "log SD": np.log(deviation),
        "SD ratio": deviation / np.maximum(voxels, _TINY),
        "tails": np.concatenate([np.log(np.mean(scaled**4, axis=1) + _TINY), windows.std(axis=1)]),
    }


def fisher_z(series: np.ndarray) -> np.ndarray:
    """Correlate all pairs of series (N, T), Fisher-transformed: (E,)."""
    correlation = cross_correlation(series, series)[np.triu_indices(len(series), 1)]
    return np.arctanh(np.clip(np.nan_to_num(correlation), -0.999, 0.999))


def dynamic_connectivity(record: RunRecord, keys: np.ndarray, labels: np.ndarray) -> float:
    """Measure how much connectivity changes within a run.

    Parameters
    ----------
    record, keys, labels
        As for `run_features`.

    Returns
    -------
    float
        Standard deviation over windows of 40 s (at least four of them) of the
        Fisher z of a pair of parcels, mean over pairs, of what the modelled
        response leaves; NaN where a window would have fewer than 6 volumes.
    """
    series = parcel_series(residual_series(record, keys), labels)
    in_window = min(_LONG_WINDOW / record.run.t_r, series.shape[1] / 4)
    if in_window < 6 or len(series) < 2:
        return float("nan")
    windows = _windowed(series, in_window, 6)
    return float(np.std([fisher_z(w) for w in windows.transpose(1, 0, 2)], axis=0).mean())


def modulation(record: RunRecord, keys: np.ndarray, labels: np.ndarray) -> Mapping[str, np.ndarray]:
    """Measure how variance and coupling change with each trial type.

    The mean over volumes of r(t) z_i(t) z_j(t), with the standardised residual series z of the
    parcels and the standardised regressor r of the trial type: the psychophysiological interaction
    of every pair of parcels (i ≠ j; Friston et al. 1997, NeuroImage 6, 218–229), and the change of
    the variance of each (i = j).

    Parameters
    ----------
    record, keys, labels
        As for `run_features`.

    Returns
    -------
    dict
        Trial type → ndarray of shape (N, N).
    """
    series = parcel_series(residual_series(record, keys), labels)
    z = _standardised(series)
    regressors = _standardised(record.array("regressors").T)
    return {
        name: (z * regressor) @ z.T / z.shape[1]
        for name, regressor in zip(record.trial_types, regressors, strict=True)
    }


def _standardised(series: np.ndarray) -> np.ndarray:
    centred = series - series.mean(axis=1, keepdims=True)
    return centred / np.maximum(centred.std(axis=1, keepdims=True), _TINY)


def _windowed(series: np.ndarray, in_window: float, least: int) -> np.ndarray:
    """Cut series (N, T) into windows: (N, W, volumes)."""
    size = min(max(least, round(in_window)), series.shape[1])
    n_windows = series.shape[1] // size
    return series[:, : n_windows * size].reshape(len(series), n_windows, size)
