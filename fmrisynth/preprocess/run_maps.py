"""Read the maps of many runs from the disk, where all of them together may not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast, overload

import numpy as np

__all__ = ["MapsOfRuns", "StackedMaps", "median_map"]

VALUES_AT_ONCE = 2**24  # whose median is taken


class StackedMaps:
    """Maps of one run that are read, and stacked, whenever an array is made of them.

    Parameters
    ----------
    run : object
        The run.
    *names : str
        Its attributes that are maps (X, Y, Z).
    """

    def __init__(self, run: object, *names: str) -> None:
        self._run, self._names = run, names

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(np.stack([getattr(self._run, name) for name in self._names]), dtype)


class MapsOfRuns(Sequence[np.ndarray]):
    """Maps of one kind, one of each run, that are read anew each time they are asked for.

    Parameters
    ----------
    runs : sequence of object
        The runs.
    name : str
        Their attribute that is a map (X, Y, Z).
    """

    def __init__(self, runs: Sequence[object], name: str) -> None:
        self._runs, self._name = runs, name

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> MapsOfRuns: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | MapsOfRuns:
        if isinstance(index, slice):
            return MapsOfRuns(self._runs[index], self._name)
        return cast(np.ndarray, getattr(self._runs[index], self._name))


def median_map(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Take the median over maps (X, Y, Z) at each voxel, a slab of them at a time."""
    median = np.empty_like(maps[0])
    at_once = max(1, VALUES_AT_ONCE // (len(maps) * prod(median.shape[1:])))
    for first in range(0, len(median), at_once):
        slab = slice(first, first + at_once)
        median[slab] = np.median(np.stack([one[slab] for one in maps]), axis=0)
    return median
