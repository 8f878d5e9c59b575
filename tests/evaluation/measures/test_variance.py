"""Shares of variance from inner products."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.variance import Rows


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_a_participant_drawn_twice_is_two_participants(rng):
    maps = rng.normal(size=(4, 30)) + np.repeat(rng.normal(size=(2, 30)), 2, axis=0)
    tasks = np.array(["x", "y", "x", "y"])

    def rows(chosen, names):
        return Rows.of(maps[chosen], {"participant": names, "task": tasks[chosen]})

    whole = rows([0, 1, 2, 3], ["a", "a", "b", "b"])
    copied = rows([0, 1, 0, 1, 2, 3], ["a", "a", "c", "c", "b", "b"])
    weights = np.array([2.0, 2.0, 1.0, 1.0])
    for factor in ("participant", "task"):
        assert whole.share(factor, weights=weights) == pytest.approx(copied.share(factor))


def test_shares_are_those_of_an_analysis_of_variance(rng):
    participants, tasks = np.repeat(np.arange(5), 6), np.tile([0, 1, 2], 10)
    maps = 2.0 * rng.normal(size=(5, 40))[participants] + rng.normal(size=(3, 40))[tasks]
    found = Rows.of(maps, {"participant": participants.astype(str), "task": tasks.astype(str)})
    # A balanced design without noise: the two factors explain everything.
    shares = [found.share(name) for name in ("participant", "task")]
    assert sum(shares) == pytest.approx(1.0)
    assert shares[0] > 2 * shares[1]
    order = found.shuffled("participant", rng)
    assert (tasks[order] == tasks).all()
    assert found.share("participant", order=order) < 0.5 * shares[0]


def test_a_factor_with_a_single_level_has_no_share(rng):
    levels = {"participant": ["a", "a", "b", "b"], "task": ["x"] * 4}
    found = Rows.of(rng.normal(size=(4, 9)), levels)
    assert np.isnan(found.share("task"))
