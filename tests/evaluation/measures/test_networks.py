"""Connectivity between parcels."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from fmrisynth.evaluation.measures.networks import connectivity, networks_of


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_connectivity_is_the_transformed_correlation_of_parcels(rng):
    common = rng.normal(size=200)
    series = np.stack([common, common, rng.normal(size=200)]) + 1e-3 * rng.normal(size=(3, 200))
    pairs = connectivity(series, np.array([0, 1, 2]))
    assert np.tanh(pairs[0]) > 0.99
    assert abs(np.tanh(pairs[1])) < 0.2


KEYS = np.argwhere(np.ones((10, 10, 1), dtype=bool))


def runs(n_participants):
    """Runs of noise, two of each participant."""
    for participant in range(n_participants):
        for number in range(2):
            series = np.random.default_rng([participant, number]).normal(size=(len(KEYS), 12))
            arrays = {
                "supervoxel_keys": KEYS,
                "supervoxel_series": series,
                "regressors": np.ones((12, 1)),
            }
            yield SimpleNamespace(
                run=SimpleNamespace(participant=f"{participant:03d}"),
                arrays=lambda *names, arrays=arrays: [arrays[name] for name in names],
            )


def test_covariances_of_many_participants_are_compared_as_if_they_lay_side_by_side(tmp_path):
    records = list(runs(40))
    found = networks_of(records[::-1], KEYS, np.arange(len(KEYS)) // 25, tmp_path)
    rows = np.zeros((40, len(KEYS) ** 2))
    for record in records:
        series, _ = record.arrays("supervoxel_series", "regressors")
        series = series - series.mean(axis=1, keepdims=True)
        rows[int(record.run.participant)] += (series @ series.T / np.sum(series**2)).ravel()
    np.testing.assert_allclose(found.products, rows @ rows.T / 4, rtol=1e-5)
    assert not list(tmp_path.iterdir())


def test_memory_for_networks_does_not_grow_with_the_participants(tmp_path):
    peaks = []
    for n_participants in (50, 250):
        records = list(runs(n_participants))
        tracemalloc.start()
        networks_of(records, KEYS, np.arange(len(KEYS)) // 25, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 200 * len(KEYS) ** 2  # bytes: a covariance has four times as many
