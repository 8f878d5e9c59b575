"""Collect the labelled maps that decoders learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Samples"]


@dataclass(frozen=True)
class Samples:
    """Effect maps of single runs with their labels.

    Attributes
    ----------
    features : ndarray of shape (n, B)
        One map per run and trial type.
    labels : ndarray of int of shape (n,)
        Index of the trial type.
    participants : ndarray of str of shape (n,)
        Participant of each map.
    """

    features: np.ndarray
    labels: np.ndarray
    participants: np.ndarray

    def of(self, participants: Sequence[str], keep: bool = True) -> Samples:
        """Keep the maps of some participants, or of all others."""
        rows = np.isin(self.participants, list(participants))
        rows = rows if keep else ~rows
        return Samples(self.features[rows], self.labels[rows], self.participants[rows])

    def mixed(self, rng: np.random.Generator) -> Samples:
        """Shuffle the labels."""
        return Samples(self.features, rng.permutation(self.labels), self.participants)
