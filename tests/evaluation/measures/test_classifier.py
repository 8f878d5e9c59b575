"""Classifiers tell two sets of runs apart where they differ, and not where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.classifier import ALL, FeatureTable, tell_apart

N_PARTICIPANTS, N_RUNS, N_FEATURES = 8, 4, 60
NAMES = np.repeat([f"{i:02d}" for i in range(N_PARTICIPANTS)], N_RUNS)
PAIRS = [(name, name) for name in np.unique(NAMES)]


def table(rng, shift=0.0, kind="lags"):
    """Runs that differ between participants far more than between sources."""
    own = 5.0 * np.random.default_rng(1).normal(size=(N_PARTICIPANTS, 1, N_FEATURES))
    values = own + shift + rng.normal(size=(N_PARTICIPANTS, N_RUNS, N_FEATURES))
    return FeatureTable({kind: values.reshape(-1, N_FEATURES)}, NAMES)


def test_runs_that_differ_are_told_apart_and_others_are_not():
    rng = np.random.default_rng(2)
    differing = tell_apart(table(rng), table(rng, 0.5), PAIRS, rng)
    assert differing[ALL].auc.mean() > 0.9
    alike = [tell_apart(table(rng), table(rng), PAIRS, rng)[ALL] for _ in range(10)]
    assert np.mean([told.auc.mean() for told in alike]) == pytest.approx(0.5, abs=0.1)
    # Permuted labels are as far from .5 as labels that mean nothing.
    assert np.std([told.auc.mean() for told in alike]) < 2.5 * alike[0].chance.std()


def test_what_was_learned_from_a_participant_is_not_used_on_that_participant():
    """A fault of one participant alone cannot be learned from the others."""
    rng = np.random.default_rng(3)
    first, second = table(rng), table(rng)
    second.features["lags"][NAMES == "03"] += 1.0
    assert tell_apart(first, second, PAIRS, rng)["lags"].auc[3] < 0.95


def test_the_kind_that_differs_is_named():
    rng = np.random.default_rng(4)
    sources = []
    for shift in (0.0, 0.5):
        kinds = table(rng, shift).features | table(rng, kind="tails").features
        sources.append(FeatureTable(kinds, NAMES))
    found = tell_apart(*sources, PAIRS, rng)
    assert set(found) == {ALL, "lags", "tails"}
    assert found["lags"].auc.mean() > 0.9 > found["tails"].auc.mean() + 0.15
    assert found[ALL].auc.mean() > 0.8


def test_a_single_participant_cannot_be_left_out():
    rng = np.random.default_rng(5)
    assert tell_apart(table(rng), table(rng), PAIRS[:1], rng) == {}


def test_pairs_of_participants_are_chance_within_what_exchanged_participants_give():
    """Two groups of real participants, whose runs are alike within each participant."""
    aucs, spreads = [], []
    for seed in range(12):
        rng = np.random.default_rng([9, seed])
        own = 2.0 * rng.normal(size=(2, N_PARTICIPANTS, 1, N_FEATURES))
        values = own + rng.normal(size=(2, N_PARTICIPANTS, N_RUNS, N_FEATURES))
        first, second = (
            FeatureTable({"lags": side.reshape(-1, N_FEATURES)}, NAMES) for side in values
        )
        told = tell_apart(first, second, PAIRS, rng, whole=True)["lags"]
        aucs.append(told.auc.mean())
        spreads.append(told.chance.std())
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.15)
    assert np.std(aucs) < 1.6 * np.mean(spreads)


def test_of_many_participants_some_are_drawn_and_several_left_out_at_once():
    rng = np.random.default_rng(8)
    names = np.repeat([f"{i:03d}" for i in range(40)], 20)
    pairs = [(name, name) for name in np.unique(names)]
    first, second = (FeatureTable({"lags": rng.normal(size=(800, 20))}, names) for _ in range(2))
    second.features["lags"][:, :2] += 1.0
    found = tell_apart(first, second, pairs, rng, n_permutations=3)["lags"]
    assert len(found.auc) == 25  # of 40 runs each: 1,024 runs at most
    assert found.auc.mean() > 0.75
    second.features["lags"][:, :2] -= 1.0
    for name in np.unique(names):  # a fault of each, which cannot be learned from the others
        second.features["lags"][names == name] += 5.0 * rng.normal(size=20)
    auc = tell_apart(first, second, pairs[:25], rng, n_permutations=3)["lags"].auc
    assert auc.mean() == pytest.approx(0.5, abs=0.25)
