"""Exact coordinates of maps, and means over participants."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.cohort import stored_maps
from fmrisynth.evaluation.cohort.map_table import MapTable
from fmrisynth.evaluation.cohort.maps import group_mean
from fmrisynth.evaluation.cohort.spans import inner_products, span_coordinates
from fmrisynth.evaluation.measures.amplitude import effect_slope
from fmrisynth.evaluation.measures.correlation import cross_correlation, map_correlation


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_coordinates_keep_every_measure(rng):
    stack = (rng.normal(size=(20, 3000)) + 4.0).astype(np.float32)
    gram = inner_products(stack, {"all": slice(0, 20)}, [("all", "all")])
    coordinates = span_coordinates(gram["all", "all"])
    assert coordinates.shape[1] <= 21
    np.testing.assert_allclose(coordinates.sum(axis=1), 0.0, atol=1e-8)
    for measure in (map_correlation, effect_slope):
        np.testing.assert_allclose(
            measure(coordinates[:10], coordinates[10:]), measure(stack[:10], stack[10:]), atol=1e-4
        )
    mean_voxels, mean_coordinates = stack[:5].mean(axis=0), coordinates[:5].mean(axis=0)
    np.testing.assert_allclose(
        cross_correlation(mean_coordinates[None], coordinates[5:]),
        cross_correlation(mean_voxels[None], stack[5:]),
        atol=1e-4,
    )


def test_group_mean_leaves_out_missing_participants(rng):
    maps = rng.normal(size=(3, 2, 5))
    maps[0, 1] = np.nan
    group = group_mean(maps)
    np.testing.assert_allclose(group[1], maps[1:, 1].mean(axis=0))
    weighted = group_mean(maps, np.array([3, 0, 0]))
    np.testing.assert_allclose(weighted[0], maps[0, 0])
    assert np.isnan(weighted[1]).all()


def test_stored_maps_are_read_in_pieces_in_any_order(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_maps, "_AT_ONCE", 100)
    maps = rng.normal(size=(9, 2, 3, 5))
    stored = stored_maps.store_maps(tmp_path / "maps.npy", maps, 9).some([8, 0, 3, 4, 1])
    expected = maps[[8, 0, 3, 4, 1]]
    pieces = list(stored.pieces())
    assert len(pieces) > 1
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in pieces]), expected)
    of_one = np.concatenate([piece for _, piece in stored.pieces(2)])
    np.testing.assert_array_equal(of_one, expected[:, :, 2])
    np.testing.assert_array_equal(list(stored), expected)
    table = MapTable(tuple("abcde"), stored, np.ones((5, 2, 3), dtype=int), stored)
    np.testing.assert_allclose(table.whole(), expected.mean(axis=1))
    np.testing.assert_allclose(
        table.whole(lambda m: 2 * m[:, :1]), 2 * expected.mean(axis=1)[:, :1]
    )
    first = np.array([0, 1, 1, 0, 0])
    np.testing.assert_array_equal(table.half(first), expected[np.arange(5), first])
    halves, whole = table.of_type(1)
    np.testing.assert_array_equal(halves, expected[:, :, 1])
    np.testing.assert_allclose(whole, expected[:, :, 1].mean(axis=1))
