"""Participants' own maps and the variance between them."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.identification import top1
from fmrisynth.evaluation.measures.individuals import between_variance, participant_matrix


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_participants_are_recognised_beyond_the_group_map(rng):
    group, own = rng.normal(size=(2, 400)), rng.normal(size=(4, 2, 400))
    halves = [10 * group + own + 0.3 * rng.normal(size=own.shape) for _ in range(2)]
    matrix = participant_matrix(*halves, group)
    assert top1(matrix) == 1.0
    assert abs(matrix[~np.eye(4, dtype=bool)].mean()) < 0.1


def test_variance_between_participants_is_free_of_noise(rng):
    own = rng.normal(size=(40, 1, 300))
    halves = [own + 2.0 * rng.normal(size=own.shape) for _ in range(2)]
    assert between_variance(*halves)[0] == pytest.approx(300, rel=0.15)
    noise_alone = [2.0 * rng.normal(size=own.shape) for _ in range(2)]
    assert abs(between_variance(*noise_alone)[0]) < 60
