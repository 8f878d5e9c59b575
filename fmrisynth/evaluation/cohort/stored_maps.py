"""Keep maps in a file, of which memory holds those that are being read.

Legend: P participants, H = 2 halves of their runs, K trial types, V voxels of the common mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from fmrisynth.bids.pieces import slices
from fmrisynth.runtime.files import writing

__all__ = ["StoredMaps", "store_maps"]

_OPENED_FOR = 32  # participants
_AT_ONCE = 2**20  # numbers that are read


@dataclass(frozen=True)
class StoredMaps:
    """Name some participants' maps in a file; another process opens it by itself.

    Attributes
    ----------
    path : Path
        File with an ndarray of shape (all participants, H, K, V).
    rows : tuple of int
        Those of the P participants.
    """

    path: Path
    rows: tuple[int, ...]

    @property
    def n_values(self) -> int:
        """Number of voxels V, or of supervoxels or coordinates."""
        return int(self._opened().shape[-1])

    def __len__(self) -> int:
        """Count the participants."""
        return len(self.rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give each participant's maps, (H, K, V)."""
        for part in slices(len(self.rows), _OPENED_FOR):
            # opened anew: what was read of a mapped file counts as memory as long as it is open
            opened = self._opened()
            yield from (opened[row] for row in self.rows[part])

    def pieces(self, trial_type: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Read maps of some participants at a time, (P, H, K, V), or those of one trial type.

        Yields
        ------
        part : slice
            Of the participants.
        maps : ndarray of shape (P, H, K, V) or (P, H, V)
            Copies.
        """
        shape = self._opened().shape
        at_once = max(1, _AT_ONCE // max(1, int(np.prod(shape[1:]))))
        for part in slices(len(self.rows), at_once):
            rows, opened = list(self.rows[part]), self._opened()
            yield part, opened[rows] if trial_type is None else opened[rows, :, trial_type]

    def some(self, places: Sequence[int]) -> StoredMaps:
        """Keep some of the participants, in the order given."""
        return StoredMaps(self.path, tuple(self.rows[place] for place in places))

    def _opened(self) -> np.ndarray:
        return cast(np.ndarray, np.load(self.path, mmap_mode="r"))


def store_maps(path: Path, maps: Iterable[np.ndarray], n: int) -> StoredMaps:
    """Write the maps (H, K, V) of n participants, which come one after the other."""
    with writing(path), path.open("wb") as stream:
        for row, own in enumerate(maps):
            if not row:
                layout = {"descr": own.dtype.str, "fortran_order": False, "shape": (n, *own.shape)}
                np.lib.format.write_array_header_2_0(stream, layout)
            stream.write(np.ascontiguousarray(own).data)
    return StoredMaps(path, tuple(range(n)))
