"""Maps of what distinguishes two sources show the parcels that differ, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.classifier import FeatureTable
from fmrisynth.evaluation.measures.feature_maps import feature_differences, voxel_parcels
from fmrisynth.evaluation.runs.grids import Grid, supervoxels_of

N_RUNS, N_PARCELS = 60, 6
FIRST, SECOND = np.triu_indices(N_PARCELS, 1)


def table(rng, **shifts):
    """Runs with standardised features, and a shift of some."""
    sizes = {"connectivity": len(FIRST), "lags": 3 * N_PARCELS, "log SD": N_PARCELS}
    features = {kind: 0.2 * rng.normal(size=(N_RUNS, size)) for kind, size in sizes.items()}
    for kind, shift in shifts.items():
        features[kind] = features[kind] + shift
    return FeatureTable(features, np.array(["01"] * N_RUNS))


def test_a_parcel_that_differs_stands_out_by_its_standard_deviations():
    rng = np.random.default_rng(1)
    lags = np.tile(0.4 * (np.arange(N_PARCELS) == 2), 3)
    edges = 0.4 * ((FIRST == 4) | (SECOND == 4))
    found = feature_differences(table(rng), table(rng, lags=lags, connectivity=edges), N_PARCELS)
    assert found["lags"] == pytest.approx([0, 0, 2, 0, 0, 0], abs=0.4)
    # Each other parcel has one pair of five with it.
    assert found["connectivity"] == pytest.approx([0.4, 0.4, 0.4, 0.4, 2, 0.4], abs=0.4)
    assert found["log SD"] == pytest.approx([0] * N_PARCELS, abs=0.6)
    reverse = feature_differences(table(rng, lags=lags), table(rng), N_PARCELS)
    assert reverse["lags"][2] == pytest.approx(-2, abs=0.4)


def test_features_that_do_not_vary_are_no_difference():
    rng = np.random.default_rng(2)
    constant = FeatureTable({"log SD": np.ones((4, N_PARCELS))}, np.array(["01"] * 4))
    other = FeatureTable({"log SD": np.full((4, N_PARCELS), 2.0)}, np.array(["01"] * 4))
    assert feature_differences(constant, other, N_PARCELS)["log SD"].tolist() == [0] * N_PARCELS
    assert np.isfinite(feature_differences(table(rng), table(rng), N_PARCELS)["lags"]).all()


def test_voxels_have_the_parcel_of_their_supervoxel():
    mask = np.ones((8, 8, 8), dtype=bool)
    mask[0] = False
    grid = Grid(np.diag([4.0, 4.0, 4.0, 1.0]), mask.shape)
    keys, average = supervoxels_of(mask, grid.affine)
    parcels = voxel_parcels(np.arange(len(keys) - 1), keys[:-1], mask, grid)
    assert parcels.shape == (mask.sum(),)
    for label in range(len(keys) - 1):
        assert set(average[[label]].indices) == set(np.flatnonzero(parcels == label))
    last = average[[len(keys) - 1]].indices
    assert (parcels[last] == -1).all()  # a supervoxel that the comparison does not have
