"""Weights and configurations on disk: written whole or not at all, read without executing anything.

Weights are safetensors, configurations JSON. Loading is strict about keys and
shapes, and says which file does not fit and why.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from fmrisynth.errors import ModelError
from fmrisynth.runtime.files import atomic_path, write_bytes

__all__ = [
    "hash_files",
    "hash_json",
    "load_tensors",
    "load_weights",
    "read_json",
    "read_training_state",
    "save_tensors",
    "save_weights",
    "write_json",
    "write_training_state",
]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model directory.

    Raises
    ------
    ModelError
        The file is missing, is not JSON, or is not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; expected it in a model directory.") from None
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested too deep
        raise ModelError(f"{path} is not readable JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a JSON object.")
    return content


def hash_json(content: Any) -> str:
    """SHA-256 of a JSON value, independent of key order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 over the bytes of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as one safetensors file, atomically."""
    # clone: safetensors refuses tensors that share memory, as tied or viewed ones do
    flat = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    # safetensors' own writing is for the owner alone and has no OSError for a full disk
    write_bytes(path, serialise(flat))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    ModelError
        The file is missing, truncated, or not safetensors (a pickle, say).
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist; expected the weights of a model there.")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}); copy the model again or train anew."
        ) from None


def save_weights(path: Path, module: nn.Module) -> None:
    """Write a module's parameters and persistent buffers."""
    save_tensors(path, module.state_dict())


def load_weights(path: Path, module: nn.Module) -> None:
    """Read a module's parameters and buffers, strict about names and shapes.

    Raises
    ------
    ModelError
        Names or shapes differ; the message lists the first of them.
    """
    found = load_tensors(path)
    expected = module.state_dict()
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    problems = [f"missing {name}" for name in missing[:3]]
    problems += [f"unexpected {name}" for name in unexpected[:3]] + shapes[:3]
    if problems:
        count = len(missing) + len(unexpected) + len(shapes)
        raise ModelError(
            f"{path} does not fit its configuration ({count} tensors differ): "
            f"{'; '.join(problems)}. Was config.json changed, or is it from another version?"
        )
    for name, tensor in found.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"{path}: {name} holds NaN or Inf, so the model makes nothing but that. Train anew."
            )
    module.load_state_dict(found)


def write_training_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state needed to resume a training, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(dict(state), stream)
        except RuntimeError as error:  # what torch makes of a full disk
            raise _cause(error) from None


def _cause(error: BaseException) -> BaseException:
    """Return the OSError that an error was raised on the way out of, else the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause or error


def read_training_state(path: Path) -> dict[str, Any] | None:
    """Read a training state, or None when there is none.

    Only tensors and plain containers are read (``weights_only``).

    Raises
    ------
    ModelError
        The file is damaged or holds anything else.
    """
    if not path.is_file() or os.path.getsize(path) == 0:
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds on damaged archives
        raise ModelError(
            f"{path} is not a readable training state ({type(error).__name__}); "
            "delete it to train from the beginning."
        ) from None
    if not isinstance(state, dict):
        raise ModelError(f"{path} is not a training state; delete it to train from the beginning.")
    return state
