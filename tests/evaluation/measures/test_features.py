"""What a classifier is given, and how coupling changes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fmrisynth.evaluation.measures.features import (
    FEATURES,
    compact_parcels,
    dynamic_connectivity,
    modulation,
    run_features,
)

KEYS = np.argwhere(np.ones((6, 6, 6), dtype=bool))
N_VOLUMES = 160
LABELS = compact_parcels(KEYS, 12)
BLOCK = np.repeat([0.0, 1.0] * 4, N_VOLUMES // 8) - 0.5


def record(series):
    """A run with a block design and a canonical nothing in it."""
    arrays = {
        "supervoxel_series": series,
        "supervoxel_keys": KEYS,
        "supervoxel_sd": series.std(axis=1),
        "regressors": BLOCK[:, None],
    }
    run = SimpleNamespace(t_r=2.0, n_volumes=N_VOLUMES, task="x", participant="01")
    return SimpleNamespace(
        run=run,
        trial_types=("block",),
        array=arrays.__getitem__,
        arrays=lambda *names: [arrays[name] for name in names],
    )


@pytest.fixture
def noise():
    rng = np.random.default_rng(6)
    own = rng.normal(size=(len(KEYS), N_VOLUMES))
    return own + rng.normal(size=(12, N_VOLUMES))[LABELS]


def test_parcels_are_compact_and_cover_all():
    assert set(LABELS) == set(range(12))
    spread = np.mean([KEYS[np.equal(LABELS, label)].std(axis=0).sum() for label in range(12)])
    assert spread < 0.7 * KEYS.std(axis=0).sum()


def test_features_are_finite_and_see_what_they_are_named_after(noise):
    plain = run_features(record(noise), KEYS, LABELS)
    assert tuple(plain) == FEATURES
    assert all(np.isfinite(values).all() for values in plain.values())
    louder = run_features(record(2 * noise), KEYS, LABELS)
    np.testing.assert_allclose(louder["log SD"] - plain["log SD"], np.log(2), atol=1e-3)
    np.testing.assert_allclose(louder["connectivity"], plain["connectivity"], atol=1e-3)
    heavy = run_features(record(noise * (1 + 3 * (np.arange(N_VOLUMES) == 50))), KEYS, LABELS)
    assert heavy["tails"][:12].mean() > plain["tails"][:12].mean() + 0.1


def test_a_level_that_changes_with_the_events_changes_variance_and_not_coupling(noise):
    change = modulation(record(noise * (1 + 0.4 * BLOCK)), KEYS, LABELS)["block"]
    still = modulation(record(noise), KEYS, LABELS)["block"]
    assert np.diag(change).mean() > 0.25 > abs(np.diag(still).mean()) + 0.15
    pairs = np.triu_indices(12, 1)
    assert np.abs(change[pairs]).mean() < 0.15


def test_coupling_that_changes_with_the_events_is_found_between_its_parcels(noise):
    rng = np.random.default_rng(7)
    common = rng.normal(size=N_VOLUMES)
    coupled = noise.copy()
    coupled[LABELS == 0] += 2 * common
    coupled[LABELS == 5] += np.where(BLOCK > 0, 2, -2) * common
    change = modulation(record(coupled), KEYS, LABELS)["block"]
    pairs = np.triu_indices(12, 1)
    assert np.argmax(change[pairs]) == np.flatnonzero((pairs[0] == 0) & (pairs[1] == 5))[0]


def test_connectivity_that_changes_is_told_from_what_stays(noise):
    rng = np.random.default_rng(8)
    signs = np.repeat(rng.choice([-1, 1], size=(12, 8)), N_VOLUMES // 8, axis=1)
    changing = noise + 3 * (signs * rng.normal(size=N_VOLUMES))[LABELS]
    staying = noise + 3 * rng.normal(size=N_VOLUMES)
    values = [dynamic_connectivity(record(series), KEYS, LABELS) for series in (changing, staying)]
    assert values[0] > 1.5 * values[1]
    short = record(noise)
    short.run.t_r = 10.0
    assert np.isnan(dynamic_connectivity(short, KEYS, LABELS)) == (40.0 / 10.0 < 6)
