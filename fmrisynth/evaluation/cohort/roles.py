"""Name the real sources of a comparison."""

__all__ = ["REAL", "TRAINING"]

REAL = "real"
"""The real held-out participants, wherever they stand beside the generators."""

TRAINING = "real training"
"""The real training participants."""
