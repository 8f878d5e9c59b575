"""Latents on disk: raw, float16, memory-mapped, keyed by what they depend on.

What is stored is what the encoder gave; what is used is standardised by
`LatentSpace`, whose shift and scale live with the autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fmrisynth.runtime.files import atomic_path

__all__ = ["LatentSpace", "cached_latents"]

MINIMUM_SCALE = 1e-4


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


class LatentSpace(nn.Module):
    """Standardises latents: zero mean, unit variance at each voxel and channel of the brain.

    Parameters
    ----------
    channels : int
        Latent channels C.
    mask : torch.Tensor
        (X, Y, Z) bool, latent voxels that hold brain.
    """

    mask: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, channels: int, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.bool())
        self.register_buffer("shift", torch.zeros(channels, *mask.shape))
        self.register_buffer("scale", torch.ones(channels, *mask.shape))

    @property
    def channels(self) -> int:
        """Latent channels C."""
        return len(self.shift)

    @torch.no_grad()
    def fit(self, latents: Sequence[np.ndarray]) -> LatentSpace:
        """Set shift and scale from the training runs' raw latents."""
        if not latents:
            raise ValueError("the latents of at least one run are needed")
        count = sum(len(z) for z in latents)
        total = np.sum([np.sum(z, axis=0, dtype=np.float64) for z in latents], axis=0)
        mean = (total / count).astype(np.float32)
        squares = [np.square(z.astype(np.float32) - mean).sum(0, dtype=np.float64) for z in latents]
        deviation = torch.from_numpy(np.sqrt(np.sum(squares, axis=0) / count)).float()
        # latent voxels at the brain's edge vary little; do not blow their noise up
        floor = 0.1 * deviation[:, self.mask].median(dim=1).values[:, None, None, None]
        self.shift.copy_(torch.from_numpy(mean))
        self.scale.copy_(deviation.maximum(floor).clamp(min=MINIMUM_SCALE))
        return self

    def standardise(self, raw: Tensor) -> Tensor:
        """Raw latents (..., C, X, Y, Z) to standardised ones, zero outside the brain."""
        return (raw - self.shift) / self.scale * self.mask

    def restore(self, latents: Tensor) -> Tensor:
        """Standardised latents to raw ones; the inverse inside the brain."""
        return latents * self.mask * self.scale + self.shift
