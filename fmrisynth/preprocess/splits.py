"""Choose the participants that are held out of training, by a seed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fmrisynth.bids.identity import SEPARATOR

__all__ = ["Split", "choose_split"]


@dataclass(frozen=True)
class Split:
    """The training and the held-out participants of a model.

    Attributes
    ----------
    training, held_out : tuple of str
        Participant labels without ``sub-``, sorted; disjoint. Those of further datasets begin
        with the dataset's name and a colon.
    """

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def role(self, participant: str) -> str:
        """Return ``training``, ``held_out``, or ``unseen`` for a participant of neither."""
        if participant in self.training:
            return "training"
        return "held_out" if participant in self.held_out else "unseen"

    def within(self, dataset: str | None) -> Split:
        """Return the split of one dataset's participants, by the labels that they have in it.

        Parameters
        ----------
        dataset : str or None
            Name of a further dataset, empty for BIDS_DIR; None for a dataset that was not
            learned from, of which everybody is unseen.
        """
        return Split(_of_dataset(self.training, dataset), _of_dataset(self.held_out, dataset))


def choose_split(participants: Iterable[str], share: float, seed: int) -> Split:
    """Hold out a share of the participants of each dataset: at least one, but never all.

    A dataset's split does not depend on which others there are.

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
        The only participant of a dataset is never held out.
    """
    labels = sorted(set(participants))
    held_out: set[str] = set()
    for dataset in {_dataset_of(label) for label in labels}:
        held_out |= _hold_out([p for p in labels if _dataset_of(p) == dataset], share, seed)
    return Split(tuple(p for p in labels if p not in held_out), tuple(sorted(held_out)))


def _hold_out(labels: list[str], share: float, seed: int) -> set[str]:
    """Choose who of a dataset is held out."""
    count = round(share * len(labels))
    count = 0 if len(labels) < 2 else min(max(1, count), len(labels) - 1)
    indices = np.random.default_rng(seed).permutation(len(labels))[:count]
    return {labels[i] for i in indices}


def _dataset_of(label: str) -> str:
    """Return the name of a participant's dataset, empty for BIDS_DIR."""
    return label.rpartition(SEPARATOR)[0]


def _of_dataset(labels: Iterable[str], dataset: str | None) -> tuple[str, ...]:
    """Return a dataset's labels without its name."""
    return tuple(
        label.rpartition(SEPARATOR)[2] for label in labels if _dataset_of(label) == dataset
    )
