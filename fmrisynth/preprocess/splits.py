"""Choose the participants that are held out of training, by a seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["Split", "choose_split"]


@dataclass(frozen=True)
class Split:
    """The training and the held-out participants of a model.

    Attributes
    ----------
    training, held_out : tuple of str
        Participant labels without ``sub-``, sorted; disjoint.
    """

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def role(self, participant: str) -> str:
        """Return ``training``, ``held_out``, or ``unseen`` for a participant of neither."""
        if participant in self.training:
            return "training"
        return "held_out" if participant in self.held_out else "unseen"


def choose_split(participants: Iterable[str], share: float, seed: int) -> Split:
    """Hold out a share of the participants: at least one, but never all.

    Parameters
    ----------
    participants : iterable of str
        Labels; order and repetition do not matter.
    share : float
        Share to hold out, in [0, 1).
    seed : int
        Seed of the choice.

    Returns
    -------
    Split
        A single participant is never held out.
    """
    labels = sorted(set(participants))
    count = round(share * len(labels))
    count = 0 if len(labels) < 2 else min(max(1, count), len(labels) - 1)
    indices = np.random.default_rng(seed).permutation(len(labels))[:count]
    held_out = {labels[i] for i in indices}
    return Split(tuple(p for p in labels if p not in held_out), tuple(sorted(held_out)))
