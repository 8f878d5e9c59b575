"""Name the real sources of a comparison."""

from __future__ import annotations

__all__ = ["REAL", "TRAINING"]


REAL = "real"


"""Name of the real held-out data wherever it stands beside the generators."""


TRAINING = "real training"


"""Name of the real training data."""
