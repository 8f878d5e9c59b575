"""Windows of frames: where they start, and how overlapping ones are joined."""

from __future__ import annotations

import numpy as np

__all__ = ["triangular_weights", "window_starts"]


def window_starts(n_volumes: int, length: int, stride: int) -> np.ndarray:
    """First frames of windows that cover a run, the last one flush with its end.

    Parameters
    ----------
    n_volumes : int
        Frames of the run; at least `length`.
    length, stride : int
        Frames of a window, and between two starts.

    Returns
    -------
    numpy.ndarray
        Increasing int; every frame lies in at least one window.
    """
    if n_volumes < length:
        raise ValueError(f"a run of {n_volumes} frames has no window of {length}")
    starts = np.arange(0, n_volumes - length + 1, stride)
    if starts[-1] != n_volumes - length:
        starts = np.append(starts, n_volumes - length)
    return starts


def triangular_weights(starts: np.ndarray, n_volumes: int, length: int) -> np.ndarray:
    """Weights that join overlapping windows; they sum to one at every frame.

    Returns
    -------
    numpy.ndarray
        (windows, length) float32.
    """
    ramp = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)
    total = np.zeros(n_volumes, np.float32)
    for start in starts:
        total[start : start + length] += ramp
    return np.stack([ramp / total[s : s + length] for s in starts])
