"""Fingerprints of connectivity."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.metrics.connectivity import _same_and_different, fingerprint


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_fingerprint_tells_same_from_different(rng):
    own = np.repeat(rng.normal(size=(5, 200)), 3, axis=0)
    same, different = fingerprint(own + 0.5 * rng.normal(size=own.shape), list("aaabbbcccdddeee"))
    assert same > 0.6
    assert different < 0.0


def test_pairs_of_runs_weigh_as_their_participants_do(rng):
    names = np.array(list("cabbcaad"))
    values, weights = rng.normal(size=(8, 8)), rng.integers(0, 3, 4)
    values += values.T
    values[2, 5] = values[5, 2] = np.nan
    drawn = weights[np.unique(names, return_inverse=True)[1]].astype(float)
    sums = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for i in range(8):
        for j in range(i + 1, 8):
            same = names[i] == names[j]
            weight = drawn[i] if same else drawn[i] * drawn[j]
            if np.isfinite(values[i, j]):
                sums[same][0] += weight * values[i, j]
                sums[same][1] += weight
    found = _same_and_different(values, names, drawn)
    assert found == pytest.approx([sums[same][0] / sums[same][1] for same in (True, False)])
