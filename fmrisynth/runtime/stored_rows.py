"""Keep arrays of one shape on the disk, of which a few are in use at a time.

A mapped file would do the same, but counts as memory of the process as far as it was read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

import numpy as np

from fmrisynth.runtime.files import make_folder, writing

__all__ = ["NamedRows", "StoredRows"]


class StoredRows:
    """Hold float32 rows in a file without a name, which ends with the process.

    Parameters
    ----------
    folder : pathlib.Path
        Where the file lies.
    shape : tuple of int
        Number of rows, and shape of each; they are zero until they are set.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.shape, self._folder = shape, folder
        with writing(folder):
            self._file = TemporaryFile(dir=make_folder(folder))  # noqa: SIM115 — as long as it is used
        self._lock = Lock()  # windows are drawn in a thread of their own

    def __len__(self) -> int:
        """Count the rows."""
        return self.shape[0]

    def __setitem__(self, index: int, row: np.ndarray) -> None:
        values = np.ascontiguousarray(np.broadcast_to(row, self.shape[1:]), np.float32)
        with self._lock, writing(self._folder):
            self._file.seek(index * self._row_bytes)
            self._file.write(values.data)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.take([index])[0]

    def take(self, indices: Sequence[int]) -> np.ndarray:
        """Read some rows into a new array."""
        rows = np.zeros((len(indices), *self.shape[1:]), np.float32)
        with self._lock:
            for row, index in zip(rows, indices, strict=True):
                if not 0 <= index < len(self):
                    raise IndexError(index)  # iteration ends with it
                self._file.seek(index * self._row_bytes)
                self._file.readinto(row.reshape(-1).data)  # the end of the file is zero, too
        return rows

    @property
    def _row_bytes(self) -> int:
        return 4 * prod(self.shape[1:])


class NamedRows(Mapping[str, np.ndarray]):
    """Find stored rows by name.

    Parameters
    ----------
    names : sequence of str
        Name of each row.
    rows : StoredRows
        As many rows.
    """

    def __init__(self, names: Sequence[str], rows: StoredRows) -> None:
        self._index, self._rows = {name: i for i, name in enumerate(names)}, rows

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._rows[self._index[name]]
