"""Write training states atomically, and read them without executing anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fmrisynth.errors import ModelError
from fmrisynth.runtime.files import atomic_path

__all__ = ["read_training_state", "write_training_state"]


def write_training_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state needed to resume a training, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(dict(state), stream)
        except RuntimeError as error:  # what torch makes of a full disk
            raise _cause(error) from None


def _cause(error: BaseException) -> BaseException:
    """Return the OSError in whose handling an error was raised, else the error itself."""
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
