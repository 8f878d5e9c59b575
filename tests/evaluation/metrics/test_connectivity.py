"""Fingerprints of connectivity."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.metrics.connectivity import fingerprint


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_fingerprint_tells_same_from_different(rng):
    own = np.repeat(rng.normal(size=(5, 200)), 3, axis=0)
    same, different = fingerprint(own + 0.5 * rng.normal(size=own.shape), list("aaabbbcccdddeee"))
    assert same > 0.6
    assert different < 0.0
