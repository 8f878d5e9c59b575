"""Shares of variance from inner products."""

from __future__ import annotations

import tracemalloc

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


def test_shares_are_those_of_inner_products(rng):
    n = 60
    maps = rng.normal(size=(n, 300)) + rng.normal(size=300)
    levels = {"participant": np.repeat(np.arange(12), 5), "task": rng.integers(0, 3, n)}
    found = Rows.of(maps.astype(np.float32), levels)
    products, weights = (
        maps @ maps.T,
        rng.multinomial(12, np.full(12, 1 / 12))[levels["participant"]],
    )
    grand = weights @ products @ weights / weights.sum()
    tasks = [weights * (levels["task"] == task) for task in range(3)]
    between = sum(w @ products @ w / w.sum() for w in tasks)
    share = (between - grand) / (weights @ np.diag(products) - grand)
    assert found.share("task", weights=weights) == pytest.approx(share, abs=1e-6)
    of = [levels["participant"] == name for name in range(12)]
    between = sum(weights[w].mean() * products[np.ix_(w, w)].sum() / w.sum() for w in of)
    share = (between - grand) / (weights @ np.diag(products) - grand)
    assert found.share("participant", weights=weights) == pytest.approx(share, abs=1e-6)


def test_memory_for_shares_does_not_grow_with_the_square_of_the_rows(rng):
    maps = rng.normal(size=(3000, 10)).astype(np.float32)
    levels = {"participant": np.arange(3000) // 2, "task": np.arange(3000) % 2}
    tracemalloc.start()
    found = Rows.of(maps, levels)
    assert all(np.isfinite(found.share(name)) for name in levels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000**2
