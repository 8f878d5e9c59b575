"""Connectivity between parcels."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.networks import connectivity


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_connectivity_is_the_transformed_correlation_of_parcels(rng):
    common = rng.normal(size=200)
    series = np.stack([common, common, rng.normal(size=200)]) + 1e-3 * rng.normal(size=(3, 200))
    pairs = connectivity(series, np.array([0, 1, 2]))
    assert np.tanh(pairs[0]) > 0.99
    assert abs(np.tanh(pairs[1])) < 0.2
