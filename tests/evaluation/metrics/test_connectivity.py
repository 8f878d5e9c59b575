"""Fingerprints of connectivity."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fmrisynth.evaluation.metrics.connectivity import _Deviations, fingerprint


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_fingerprint_tells_same_from_different(rng):
    own = np.repeat(rng.normal(size=(5, 200)), 3, axis=0)
    same, different = fingerprint(own + 0.5 * rng.normal(size=own.shape), list("aaabbbcccdddeee"))
    assert same > 0.6
    assert different < 0.0


def test_pairs_of_runs_weigh_as_their_participants_do(rng):
    names, half = np.array(list("cabbcaadb")), rng.integers(-9, 9, (4, 30))
    edges = np.concatenate([half, -half, 0 * half[:1]])  # the last one does not deviate
    values = np.corrcoef(edges[:8])
    counts = rng.integers(0, 3, (5, 4))
    found = _Deviations.of(edges, names).same_and_different(counts)
    for row, drawn in zip(found, counts[:, np.unique(names, return_inverse=True)[1]], strict=True):
        sums = {True: [0.0, 0.0], False: [0.0, 0.0]}
        for i, j in combinations(range(8), 2):
            same = names[i] == names[j]
            weight = drawn[i] if same else drawn[i] * drawn[j]
            sums[same][0] += weight * values[i, j]
            sums[same][1] += weight
        expected = [sums[same][0] / sums[same][1] for same in (True, False)]
        assert row == pytest.approx(expected, abs=1e-9)
