"""Keep participants' noise models on the disk: each takes megabytes, one is used at a time."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn

from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.runtime.files import make_folder, writing

__all__ = ["NoiseStore", "StoredNoise"]


class NoiseStore:
    """Write noise models to a file without a name, which ends with the process.

    Only what differs from the group's noise is written.

    Parameters
    ----------
    group : NoiseModel
        The group's noise, on the CPU.
    folder : pathlib.Path
        Where the file lies.
    """

    def __init__(self, group: NoiseModel, folder: Path) -> None:
        self.group, self._folder = group, folder
        with writing(folder):
            self._file = TemporaryFile(dir=make_folder(folder))  # noqa: SIM115 — open as long as it is used
        self._lock = Lock()  # windows are drawn by two threads

    def add(self, model: NoiseModel) -> StoredNoise:
        """Write a noise model that `NoiseModel.infer` made of the group's."""
        shared = dict(self.group.named_buffers())
        own = {n: b for n, b in model.named_buffers() if b is not shared.get(n)}
        values = torch.cat([buffer.flatten() for buffer in own.values()]).numpy()
        with self._lock, writing(self._folder):
            start = self._file.seek(0, 2)
            self._file.write(values.tobytes())
        shapes = {name: tuple(buffer.shape) for name, buffer in own.items()}
        return StoredNoise(self, start, values.dtype, shapes)

    def read(self, start: int, values: np.ndarray) -> None:
        """Fill an array with what was written from a place in the file on."""
        with self._lock:
            self._file.seek(start)
            self._file.readinto(values.data)


class StoredNoise:
    """Draw windows of noise from a model in a file.

    Parameters
    ----------
    store : NoiseStore
        Holds the model.
    start : int
        Its place in the file, bytes.
    dtype : numpy.dtype
        Of all its values.
    shapes : mapping of str to tuple of int
        Names of the buffers that are not the group's, in the order in the file.
    """

    def __init__(
        self, store: NoiseStore, start: int, dtype: np.dtype, shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._store, self._start, self._dtype, self._shapes = store, start, dtype, shapes

    def load(self) -> NoiseModel:
        """Read the model, on the CPU."""
        sizes = [int(np.prod(shape)) for shape in self._shapes.values()]
        values = np.empty(sum(sizes), self._dtype)
        self._store.read(self._start, values)
        parts = torch.from_numpy(values).split(sizes)
        buffers = {
            name: part.view(shape)
            for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)
        }
        model = _with_buffers(self._store.group, buffers)
        assert isinstance(model, NoiseModel)  # as the group's is
        return model

    def sample_window(
        self, n_frames: int, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw the noise of a window; see `NoiseModel.sample_window`."""
        return self.load().sample_window(n_frames, generator, participant_seed)


def _with_buffers(module: nn.Module, buffers: Mapping[str, Tensor]) -> nn.Module:
    """Copy a module with other buffers, all else shared."""
    other = copy(module)
    own = {name: buffer for name, buffer in buffers.items() if "." not in name}
    other._buffers = {**module._buffers, **own}
    other._modules = dict(module._modules)
    for name, part in module.named_children():
        start = f"{name}."
        inner = {n.removeprefix(start): b for n, b in buffers.items() if n.startswith(start)}
        other._modules[name] = _with_buffers(part, inner)
    return other
