"""Learn task fMRI from a BIDS dataset and write synthetic runs as BIDS derivatives.

The names below are the public interface; docs/reference/api.md shows them in use. Each is
imported on its first use, so that ``import fmrisynth`` is light and torch is
loaded only where it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmrisynth.api import synthesise, train
    from fmrisynth.bids.search import find_runs
    from fmrisynth.evaluation.evaluate import evaluate
    from fmrisynth.model.model import Model

__version__ = "0.1.0"

__all__ = ["Model", "__version__", "evaluate", "find_runs", "synthesise", "train"]

_MODULES = {
    "Model": "fmrisynth.model.model",
    "evaluate": "fmrisynth.evaluation.evaluate",
    "find_runs": "fmrisynth.bids.search",
    "synthesise": "fmrisynth.api",
    "train": "fmrisynth.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names beside those that are loaded."""
    return sorted({*globals(), *__all__})
