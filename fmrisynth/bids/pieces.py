"""Go through a run's voxels in pieces that fit into the cache; whole runs are larger by far."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = [
    "VOLUMES_AT_ONCE",
    "VOXELS_AT_ONCE",
    "brain_median",
    "brain_pieces",
    "brain_series",
    "slices",
    "some_series",
]

VOLUMES_AT_ONCE, VOXELS_AT_ONCE = 64, 1024  # of float32
_SAMPLE = 4096  # voxels, which tell about how all are
_ABOUT = 0.04  # share of the values on either side


def slices(length: int, at_once: int = VOXELS_AT_ONCE) -> Iterator[slice]:
    """Give slices of rows, as many at once as fit into the cache."""
    for start in range(0, length, at_once):
        yield slice(start, start + at_once)


def brain_pieces(brain: np.ndarray, at_once: int = VOXELS_AT_ONCE) -> Iterator[np.ndarray]:
    """Give the flat indices of a mask's voxels, as many at once as fit into the cache."""
    voxels = np.flatnonzero(brain)
    for part in slices(len(voxels), at_once):
        yield voxels[part]


def brain_series(
    data: np.ndarray, brain: np.ndarray, at_once: int = VOXELS_AT_ONCE
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give the series of a mask's voxels in pieces, with their flat indices.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z, T)
        The run.
    brain : ndarray of shape (X, Y, Z), bool
        Chooses voxels.
    at_once : int
        Voxels of a piece.

    Yields
    ------
    voxels : ndarray of shape (P,), int
        Flat indices.
    series : ndarray of shape (P, T)
        Copies of their series.
    """
    rows = data.reshape(-1, data.shape[3])
    for voxels in brain_pieces(brain, at_once):
        yield voxels, rows[voxels]


def some_series(data: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Copy the series (P, T) of about 4,096 voxels of a mask, evenly spaced, of a run (X, Y, Z, T).

    They are all, where there are fewer.
    """
    voxels = np.flatnonzero(brain)
    chosen: np.ndarray = data.reshape(-1, data.shape[3])[voxels[:: max(1, len(voxels) // _SAMPLE)]]
    return chosen


def brain_median(data: np.ndarray, brain: np.ndarray) -> float:
    """Compute the median over a mask's voxels and all volumes.

    Some voxels tell between which values it is; only the values between these are sorted.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z, T)
        The run.
    brain : ndarray of shape (X, Y, Z), bool
        Chooses voxels.
    """
    low, high = np.quantile(
        some_series(data, brain), (0.5 - _ABOUT, 0.5 + _ABOUT), method="nearest"
    )
    below, between = 0, []
    for _, series in brain_series(data, brain):
        below += int(np.count_nonzero(series < low))
        between.append(series[(series >= low) & (series <= high)])
    values = np.concatenate(between)
    total = int(np.count_nonzero(brain)) * data.shape[3]
    middle = slice((total - 1) // 2 - below, total // 2 - below + 1)
    if not 0 <= middle.start < middle.stop <= len(values):  # NaN, or voxels unlike the others
        return float(np.median(data[brain]))
    return float(np.partition(values, (middle.start, middle.stop - 1))[middle].mean())
