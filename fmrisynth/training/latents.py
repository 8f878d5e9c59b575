"""Encode the training runs once, and keep their raw latents on disk.

The cache holds what the encoder gave, as float16; `LatentSpace` standardises it on use, so
that another standardisation needs no new cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from lightning_fabric import Fabric

from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.model.codec import encode_run
from fmrisynth.runtime.files import atomic_path
from fmrisynth.training.prepare import TrainingData, progress_bar

__all__ = ["cached_latents", "encode_latents"]


def encode_latents(
    autoencoder: VQGAN, data: TrainingData, folder: Path, fabric: Fabric
) -> Sequence[np.ndarray]:
    """Encode the training runs; each process its share, each run once.

    Parameters
    ----------
    autoencoder : VQGAN
        The trained autoencoder.
    data : TrainingData
        The runs.
    folder : pathlib.Path
        Folder of the autoencoder's training, which gets the folder ``latents``.
    fabric : lightning_fabric.Fabric
        Precision and processes.

    Returns
    -------
    sequence of ndarray of shape (N, C, x, y, z)
        Raw latents of each run, float16, on disk.
    """
    keys, cache = data.keys, folder / "latents"

    def encode(index: int) -> np.ndarray:
        with fabric.autocast():
            return encode_run(autoencoder, data.runs[index].frames, data.scale, data.grid.mask)

    if fabric.world_size > 1:
        mine = range(fabric.global_rank, len(keys), fabric.world_size)
        cached_latents([keys[i] for i in mine], lambda i: encode(mine[i]), cache)
        fabric.barrier()
    return cached_latents(keys, encode, cache, progress_bar("Encoding", len(keys)))


def cached_latents(
    keys: Sequence[str],
    encode: Callable[[int], np.ndarray],
    cache: Path,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Sequence[np.ndarray]:
    """Read each run's raw latents, encoding those that the cache lacks.

    Parameters
    ----------
    keys : sequence of str
        One name per run, a hash of the run's preprocessing.
    encode : callable
        Returns the latents (N, C, x, y, z) of a run by its index.
    cache : pathlib.Path
        Folder of one autoencoder.
    progress : callable
        Wraps the iteration, for a progress bar.

    Returns
    -------
    sequence of ndarray of shape (N, C, x, y, z)
        float16, on disk; each is open only while a part of it is read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for index, key in enumerate(progress(keys)):
        path = cache / f"{key}.npy"
        if not path.is_file():
            with atomic_path(path) as temporary, open(temporary, "wb") as stream:
                np.save(stream, encode(index).astype(np.float16))
    return _StoredArrays([cache / f"{key}.npy" for key in keys])


class _StoredArray:
    """An array in a file that is open only while a part of it is read.

    A mapping keeps its file open, and those of many runs would exhaust the files that a process
    may have open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def shape(self) -> tuple[int, ...]:
        return self._mapped().shape

    def _mapped(self) -> np.ndarray:
        array: np.ndarray = np.load(self._path, mmap_mode="r")
        return array

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.array(self._mapped()[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._mapped(), dtype)


class _StoredArrays(Sequence[np.ndarray]):
    """Arrays in files, none of which stays open."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(index, slice):
            return _StoredArrays(self._paths[index])
        return cast(np.ndarray, _StoredArray(self._paths[index]))
