"""Latents on disk: raw, float16, memory-mapped, keyed by what they depend on.

What is stored is what the encoder gave; what is used is standardised by
`LatentSpace`, whose shift and scale live with the autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from fmrisynth.runtime.files import atomic_path

__all__ = ["cached_latents"]


def cached_latents(
    keys: Sequence[str],
    encode: Callable[[int], np.ndarray],
    cache: Path,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> list[np.ndarray]:
    """Read each run's raw latents, encoding those that the cache lacks.

    Parameters
    ----------
    keys : sequence of str
        One name per run, a hash of the run's preprocessing.
    encode : callable
        Index of a run to its latents (T, C, X, Y, Z).
    cache : pathlib.Path
        Folder named after the autoencoder's hash.
    progress : callable
        Wraps the iteration, for a progress bar.

    Returns
    -------
    list of numpy.ndarray
        (T, C, X, Y, Z) float16, memory-mapped.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for index, key in enumerate(progress(keys)):
        path = cache / f"{key}.npy"
        if not path.is_file():
            with atomic_path(path) as temporary, open(temporary, "wb") as stream:
                np.save(stream, encode(index).astype(np.float16))
    return [np.load(cache / f"{key}.npy", mmap_mode="r") for key in keys]
