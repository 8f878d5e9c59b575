"""Estimates of several samples: their mean, and intervals that hold the spread of samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fmrisynth.evaluation.metrics.estimate import Estimate
from fmrisynth.evaluation.metrics.pooling import pool_samples


def corr(value, half, **other):
    return {"corr": Estimate(value, value - half, value + half, 0.9, 0.1, **other)}


def test_samples_that_agree_change_nothing():
    first = corr(0.5, 0.2, by_construction="it was given")
    assert pool_samples([first, first, first], 4) == first


def test_the_spread_of_samples_widens_the_interval():
    values = (0.4, 0.5, 0.6)
    pooled = pool_samples([corr(value, 0.1) for value in values], 8)["corr"]
    assert pooled.value == pytest.approx(0.5)
    assert (pooled.ceiling, pooled.floor) == (0.9, 0.1)
    half = pooled.high - pooled.value
    assert half == pytest.approx(pooled.value - pooled.low)
    # More than either source of chance alone.
    assert half > 0.1
    assert half > stats.norm.ppf(0.975) * np.std(values, ddof=1) / np.sqrt(3)
    closer = pool_samples([corr(value, 0.1) for value in (0.45, 0.5, 0.55)], 8)["corr"]
    assert 0.1 < closer.high - closer.value < half


def test_intervals_cover_the_mean_over_participants_and_samples():
    """Draws of both kinds: 95 % is meant, and few samples are on the safe side."""
    rng = np.random.default_rng(1)
    n, n_samples, covered = 8, 4, []
    for _ in range(600):
        of_participants, of_samples = rng.normal(size=n), 0.4 * rng.normal(size=n_samples)
        half = stats.t.ppf(0.975, n - 1) * of_participants.std(ddof=1) / np.sqrt(n)
        drawn = [{"slope": Estimate(v, v - half, v + half)}
                 for v in of_participants.mean() + of_samples]  # fmt: skip
        pooled = pool_samples(drawn, n)["slope"]
        covered.append(pooled.low < 0 < pooled.high)
    assert 0.92 < np.mean(covered) < 0.98


def test_limits_stay_in_the_range_of_the_metric():
    drawn = [{"told_apart": Estimate(v, v - 0.05, 1.0)} for v in (0.8, 0.99)]
    pooled = pool_samples(drawn, 4)["told_apart"]
    assert (pooled.low, pooled.high) == (0.0, 1.0)


def test_what_only_the_first_sample_has_stays_and_gaps_are_left_out():
    own = {"sample_correlation": Estimate(0.3), "corr": Estimate(0.5)}
    missing = {"corr": Estimate(float("nan"))}
    assert pool_samples([own, missing], 3) == own
    pooled = pool_samples([own, corr(0.7, 0.1)], 1)["corr"]
    assert pooled.value == pytest.approx(0.6)
    assert pooled.ceiling == 0.9
