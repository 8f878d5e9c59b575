"""Write weights and configurations atomically, and read them without executing anything.

Weights are safetensors, configurations JSON. Loading is strict about keys and shapes, and
says which file does not fit and why.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
    "save_tensors",
    "save_weights",
    "write_json",
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
    """Compute the SHA-256 of a JSON value, independent of key order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_files(paths: Iterable[Path]) -> str:
    """Compute the SHA-256 over the bytes of files, in the order given."""
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
    tensors = load_tensors(path)
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems = [f"missing {name}" for name in missing[:3]]
    problems += [f"unexpected {name}" for name in unexpected[:3]] + shapes[:3]
    if problems:
        count = len(missing) + len(unexpected) + len(shapes)
        raise ModelError(
            f"{path} does not fit its configuration ({count} tensors differ): "
            f"{'; '.join(problems)}. Was config.json changed, or is it from another version?"
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"{path}: {name} holds NaN or Inf, so the model makes nothing but that. Train anew."
            )
    module.load_state_dict(tensors)
