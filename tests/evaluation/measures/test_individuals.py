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


def conditions(halves):
    """Pairs of maps (P, N), condition by condition."""
    return zip(*(np.moveaxis(maps, 1, 0) for maps in halves), strict=True)


def test_variance_between_participants_is_free_of_noise(rng):
    own = rng.normal(size=(40, 1, 300))
    halves = [own + 2.0 * rng.normal(size=own.shape) for _ in range(2)]
    assert between_variance(conditions(halves))[0] == pytest.approx(300, rel=0.15)
    noise_alone = [2.0 * rng.normal(size=own.shape) for _ in range(2)]
    assert abs(between_variance(conditions(noise_alone))[0]) < 60


def test_samples_of_participants_are_weighed_as_if_they_were_repeated(rng):
    halves = rng.normal(size=(2, 6, 3, 20)) + rng.normal(size=(6, 3, 20))
    halves[0, 2, 1] = np.nan  # has not the second condition
    counts = rng.multinomial(6, np.full(6, 1 / 6), 4)
    variance, error = between_variance(conditions(halves), counts)
    for k, drawn in enumerate(counts):
        repeated = np.repeat(halves, drawn, axis=1)
        expected = []
        for a, b in zip(*np.moveaxis(repeated, 2, 1), strict=True):
            present = np.isfinite(a[:, 0])
            covariance = np.cov(a[present].T, b[present].T)[:20, 20:]
            expected.append(np.trace(covariance))
        assert variance[k] == pytest.approx(np.mean(expected))
        assert error[k] == pytest.approx(np.std(expected, ddof=1) / 3**0.5)
