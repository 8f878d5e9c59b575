"""Choose the training participants who tell what helps people that were not learned from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmrisynth.config.diffusion import DiffusionTraining

__all__ = ["choose_validation"]

ENOUGH_TO_VALIDATE = 4  # participants, among whom a standard error says something


def choose_validation(
    participants: Sequence[str], training: DiffusionTraining, seed: int
) -> tuple[list[str], list[str]]:
    """Split the training participants into those to learn from and those to validate with.

    Parameters
    ----------
    participants : sequence of str
        Label of each run's participant.
    training : DiffusionTraining
        Share of the participants that validate.
    seed : int
        Seed of the choice.

    Returns
    -------
    learners, watched : list of str
        Sorted; nobody validates where there is one participant. Four do however small the share,
        if they are no more than a third: what two or three people support is chance.
    """
    labels = sorted(set(participants))
    count = round(len(labels) * training.validation_share)
    if training.validation_share and len(labels) > 1:
        least = max(1, min(ENOUGH_TO_VALIDATE, len(labels) // 3))
        count = min(max(least, count), len(labels) - 1)
    shuffled = [labels[i] for i in np.random.default_rng([seed, 1]).permutation(len(labels))]
    return sorted(shuffled[count:]), sorted(shuffled[:count])
