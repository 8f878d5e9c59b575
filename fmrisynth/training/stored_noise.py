"""Keep participants' noise models on the disk: each takes megabytes, one is used at a time."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.runtime.stored_rows import StoredRows

__all__ = ["NoiseStore", "StoredNoise"]


class NoiseStore:
    """Hold noise models that were inferred from the group's: what differs from it is on the disk.

    Parameters
    ----------
    group : NoiseModel
        The group's noise, on the CPU.
    folder : pathlib.Path
        Where the file lies.
    most : int
        Number of models, at most.
    """

    def __init__(self, group: NoiseModel, folder: Path, most: int) -> None:
        self.group, self._folder, self._most, self._count = group, folder, most, 0
        self._shapes: dict[str, torch.Size] = {}
        self._rows: StoredRows | None = None

    def add(self, model: NoiseModel) -> StoredNoise:
        """Write what `NoiseModel.infer` made of the group's noise."""
        shared = dict(self.group.named_buffers())
        own = {n: b for n, b in model.named_buffers() if b is not shared.get(n)}
        values = torch.cat([buffer.flatten() for buffer in own.values()]).numpy()
        if self._rows is None:
            self._shapes = {name: buffer.shape for name, buffer in own.items()}
            self._rows = StoredRows(self._folder, (self._most, len(values)))
        self._rows[self._count] = values
        self._count += 1
        return StoredNoise(self, self._count - 1, model.mode_sd)

    def load(self, index: int) -> NoiseModel:
        """Read one of the models."""
        assert self._rows is not None  # a model was added
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = torch.from_numpy(self._rows[index]).split(sizes)
        named = zip(self._shapes.items(), parts, strict=True)
        buffers = {name: part.view(shape) for (name, shape), part in named}
        model = _with_buffers(self.group, buffers)
        assert isinstance(model, NoiseModel)  # as the group's is
        return model


class StoredNoise:
    """Draw windows of noise from a model in a store.

    Parameters
    ----------
    store : NoiseStore
        Holds the model.
    index : int
        Its number.
    mode_sd : Tensor of shape (K,)
        Of the model, see `NoiseModel.mode_sd`.
    """

    def __init__(self, store: NoiseStore, index: int, mode_sd: Tensor) -> None:
        self._store, self._index, self.mode_sd = store, index, mode_sd

    def load(self) -> NoiseModel:
        """Read the model, on the CPU."""
        return self._store.load(self._index)

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
