"""Keep arrays of any shape in a file, of which memory holds those that are in use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TypeVar

import numpy as np

from fmrisynth.runtime.files import writing

__all__ = ["StoredArrays"]

K = TypeVar("K")


class StoredArrays(Mapping[K, np.ndarray]):
    """Find float32 arrays by name, read anew each time; another process finds them, too.

    Parameters
    ----------
    path : pathlib.Path
        Receives the arrays.
    arrays : mapping
        Name → ndarray.
    """

    def __init__(self, path: Path, arrays: Mapping[K, np.ndarray]) -> None:
        self._path = path
        self._places: dict[K, tuple[int, tuple[int, ...]]] = {}
        with writing(path), path.open("wb") as stream:
            for name, values in arrays.items():
                self._places[name] = stream.tell(), values.shape
                stream.write(np.ascontiguousarray(values, np.float32).data)

    def __len__(self) -> int:
        """Count the arrays."""
        return len(self._places)

    def __iter__(self) -> Iterator[K]:
        return iter(self._places)

    def __getitem__(self, name: K) -> np.ndarray:
        start, shape = self._places[name]
        return np.fromfile(self._path, np.float32, prod(shape), offset=start).reshape(shape)
