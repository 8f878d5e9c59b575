"""Modulations of participants, which lie on the disk."""

from __future__ import annotations

import numpy as np

from fmrisynth.evaluation.measures.modulations import Modulations
from fmrisynth.runtime.stored_rows import StoredRows


def test_means_are_those_of_participants_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(150, 2, 6)).astype(np.float32)
    maps[3, 1] = maps[80:, 1] = np.nan
    stored = StoredRows(tmp_path, maps.shape)
    for row, own in enumerate(maps):
        stored[row] = own
    rows, weights = rng.permutation(150)[:140], rng.integers(0, 3, (4, 140))
    found = Modulations({}, stored).means(rows, weights)
    for k in range(2):
        chosen = maps[rows, k]
        there = np.isfinite(chosen[:, 0])
        expected = weights[:, there] @ chosen[there] / weights[:, there].sum(axis=1)[:, None]
        np.testing.assert_allclose(found[:, k], expected, atol=1e-5)
    nobody = np.isin(rows, [3, *range(80, 150)]).astype(float)
    assert np.isnan(Modulations({}, stored).means(rows, nobody[None])[0, 1]).all()


def test_nobody_has_no_mean(tmp_path):
    nobody = Modulations({}, StoredRows(tmp_path, (0, 2, 6)))
    assert nobody.means([], np.zeros((0, 0))).shape == (0, 2, 6)
