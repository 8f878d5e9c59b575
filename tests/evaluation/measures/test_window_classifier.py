"""Networks on windows tell sources apart by what windows have, and not where they do not differ."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.window_classifier import WindowTable, tell_windows_apart

N_PARTICIPANTS, N_RUNS, N_PARCELS, N_VOLUMES = 4, 8, 10, 60
NAMES = [f"{p:02d}" for p in range(N_PARTICIPANTS) for _ in range(N_RUNS)]
PAIRS = [(name, name) for name in dict.fromkeys(NAMES)]


def table(rng, lag1=0.0, only=None):
    """Runs with networks of the participants' own; one participant's may be slower in time."""
    series = []
    for r, name in enumerate(NAMES):
        own = np.eye(N_PARCELS) + 0.3 * np.random.default_rng(int(name)).normal(size=(N_PARCELS, 1))
        noise = np.random.default_rng([int(rng.integers(2**31)), r]).normal(
            size=(N_PARCELS, N_VOLUMES)
        )
        if only in (None, name):
            for t in range(1, N_VOLUMES):
                noise[:, t] = lag1 * noise[:, t - 1] + np.sqrt(1 - lag1**2) * noise[:, t]
        series.append(own @ noise)
    return WindowTable.of(series, [2.0] * len(series), NAMES)


def test_slower_runs_are_told_apart_and_equal_ones_are_not():
    rng = np.random.default_rng(1)
    told = tell_windows_apart(table(rng), table(rng, 0.5), PAIRS, rng, n_permutations=4)
    assert told.auc.mean() > 0.9
    alike = [
        tell_windows_apart(table(rng), table(rng), PAIRS, rng, n_permutations=20) for _ in range(3)
    ]
    assert np.mean([told.auc.mean() for told in alike]) == pytest.approx(0.5, abs=0.1)
    chance = np.concatenate([told.chance for told in alike])
    assert chance.mean() == pytest.approx(0.5, abs=0.05)
    assert 0.02 < chance.std() < 0.15


def test_what_was_learned_from_a_participant_is_not_used_on_that_participant():
    rng = np.random.default_rng(2)
    slow = table(rng, 0.5, only="02")
    found = tell_windows_apart(table(rng), slow, PAIRS, rng, n_permutations=2)
    assert found.auc[2] < 0.9
    two = [("02", "02"), ("01", "01")]
    assert len(tell_windows_apart(table(rng), slow, two, rng, n_permutations=2).auc) == 2


def test_short_runs_and_other_repetition_times_are_told_apart_and_a_single_pair_is_not():
    rng = np.random.default_rng(3)
    short = [values[:, :6] for values in table(rng).series.values()]
    brief = WindowTable.of(short, [3.0] * len(short), NAMES)
    assert set(brief.sizes) == {6}
    assert set(WindowTable.of([*table(rng).series.values()], [0.8] * len(short), NAMES).sizes) == {
        38
    }
    told = tell_windows_apart(brief, table(rng), PAIRS, rng, n_permutations=2)
    assert np.isfinite(told.auc).all()
    assert tell_windows_apart(table(rng), table(rng), PAIRS[:1], rng) is None


def test_the_same_random_numbers_give_the_same_areas():
    first, second = (
        tell_windows_apart(
            table(np.random.default_rng(4)),
            table(np.random.default_rng(5)),
            PAIRS,
            np.random.default_rng(6),
            n_permutations=3,
        )
        for _ in range(2)
    )
    assert first.auc.tolist() == second.auc.tolist()
    assert first.chance.tolist() == second.chance.tolist()
