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


@pytest.mark.parametrize("n", [4, 6, 10, 20])
@pytest.mark.parametrize("quantity", ["mean", "ratio", "correlation"])
def test_intervals_of_few_participants_cover_the_truth(n, quantity):
    """Nominal 95 %; the bounds leave two standard errors of a share of 800 trials."""
    rng = np.random.default_rng([n, len(quantity)])
    draw, measure, truth = QUANTITIES[quantity](n)
    covered = 0
    for _ in range(N_TRIALS):
        sample = draw(rng)
        value = measure(sample, np.ones(n))
        samples = np.array([measure(sample, c) for c in bootstrap_counts(n, rng, 200)])
        low, high = interval(value, samples, n)
        assert low <= value <= high
        covered += low <= truth <= high
    # Correlations of averaged maps are not symmetric: their intervals are rather too wide.
    most = 0.98 if quantity != "correlation" else 1.0
    assert 0.92 <= covered / N_TRIALS <= most


def _mean(n):
    return lambda rng: rng.normal(1, 1, n), lambda x, w: float(w @ x / w.sum()), 1.0


def _ratio(n):
    def draw(rng):
        real = rng.normal(1, 0.2, n)
        return np.stack([real * rng.normal(1, 0.1, n), real])

    return draw, lambda x, w: float((x[0] @ w) / (x[1] @ w)), 1.0


def _correlation(n):
    """Group maps of two cohorts with one true map of unit power and noise of variance 2."""
    true = np.sin(2 * np.pi * np.arange(60) / 60) * np.sqrt(2)

    def draw(rng):
        return true + np.sqrt(2) * rng.normal(size=(2, n, 60))

    def measure(x, w):
        first, second = w @ x[0], w @ x[1]
        first, second = first - first.mean(), second - second.mean()
        return float(first @ second / np.sqrt((first @ first) * (second @ second)))

    return draw, measure, 1 / (1 + 2 / n)


QUANTITIES = {"mean": _mean, "ratio": _ratio, "correlation": _correlation}
N_TRIALS = 800


def test_a_single_participant_has_no_interval():
    assert np.isnan(interval(1.0, np.ones(100), 1)).all()


def test_draws_are_matched_in_size(rng):
    for n_real, n_training in ((3, 10), (5, 2), (4, 4)):
        for ours, theirs in matched_draws(n_real, n_training, rng):
            assert len(ours) == len(theirs) == min(n_real, n_training)
            assert len(set(theirs)) == len(theirs)
    assert matched_draws(3, 0, rng) == []
