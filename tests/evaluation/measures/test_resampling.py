"""Bootstrap samples, intervals and groups of equal size."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.resampling import (
    bootstrap_counts,
    interval,
    matched_draws,
)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_bootstrap_samples_are_as_large_as_the_cohort(rng):
    assert (bootstrap_counts(5, rng).sum(axis=1) == 5).all()
    assert len(bootstrap_counts(1, rng)) == 0


def test_interval_holds_the_value_and_covers_the_truth(rng):
    covered = 0
    for _ in range(200):
        sample = rng.normal(1.0, 1.0, 20)
        means = bootstrap_counts(20, rng, 300) @ sample / 20
        low, high = interval(sample.mean(), means)
        assert low <= sample.mean() <= high
        covered += low <= 1.0 <= high
    assert 0.85 <= covered / 200 <= 0.99


def test_draws_are_matched_in_size(rng):
    for n_real, n_training in ((3, 10), (5, 2), (4, 4)):
        for ours, theirs in matched_draws(n_real, n_training, rng):
            assert len(ours) == len(theirs) == min(n_real, n_training)
            assert len(set(theirs)) == len(theirs)
    assert matched_draws(3, 0, rng) == []
