"""Place overlapping windows of frames on a run, and weight them so that they join."""

from __future__ import annotations

import numpy as np

__all__ = ["joining_weights", "window_starts"]


def window_starts(n_volumes: int, length: int, stride: int) -> np.ndarray:
    """Find the first frames of windows that cover a run; the last ends with the run.

    Parameters
    ----------
    n_volumes : int
        Frames of the run; at least `length`.
    length, stride : int
        Frames of a window, and between two starts.

    Returns
    -------
    ndarray of shape (W,), int
        Increasing; every frame lies in at least one window.

    Raises
    ------
    ValueError
        The run is shorter than a window.
    """
    if n_volumes < length:
        raise ValueError(f"a run of {n_volumes} frames has no window of {length}")
    starts = np.arange(0, n_volumes - length + 1, stride)
    if starts[-1] != n_volumes - length:
        starts = np.append(starts, n_volumes - length)
    return starts


def joining_weights(starts: np.ndarray, n_volumes: int, length: int) -> np.ndarray:
    """Compute the weights that join overlapping windows; they sum to one at every frame.

    A window's weights rise and fall as sin². With straight slopes, which start
    and end steeply, neighbouring frames on the two sides of a window's end
    differ by more than others do (a seam).

    Parameters
    ----------
    starts : ndarray of shape (W,), int
        First frame of each window.
    n_volumes, length : int
        Frames of the run and of a window.

    Returns
    -------
    ndarray of shape (W, length), float32
    """
    bell = np.sin(np.pi * (np.arange(length) + 0.5) / length).astype(np.float32) ** 2
    total = np.zeros(n_volumes, np.float32)
    for start in starts:
        total[start : start + length] += bell
    return np.stack([bell / total[s : s + length] for s in starts])
