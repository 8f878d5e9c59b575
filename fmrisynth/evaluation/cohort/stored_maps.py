"""Keep maps in a file, of which memory holds those that are being read.

Legend: P participants, H = 2 halves of their runs, K trial types, V voxels of the common mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

__all__ = ["StoredMaps"]


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
        """Number of voxels V, or of supervoxels."""
        return int(self._opened().shape[-1])

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give each participant's maps, (H, K, V)."""
        opened = self._opened()
        return (opened[row] for row in self.rows)

    def some(self, places: Sequence[int]) -> StoredMaps:
        """Keep some of the participants, in the order given."""
        return StoredMaps(self.path, tuple(self.rows[place] for place in places))

    def _opened(self) -> np.ndarray:
        return cast(np.ndarray, np.load(self.path, mmap_mode="r"))
