"""Correlations of rows."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.correlation import cross_correlation


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def maps(rng):
    return rng.normal(size=(7, 500)) + rng.normal(size=500)


def test_correlation_equals_numpy(maps, rng):
    other = rng.normal(size=(4, 500))
    expected = np.corrcoef(maps, other)[:7, 7:]
    np.testing.assert_allclose(cross_correlation(maps, other), expected, atol=1e-12)
