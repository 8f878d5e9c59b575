"""Means of cubes that are mostly brain, and what lies between them."""

import numpy as np

from fmrisynth.preprocess.cubes import between_cubes, cube_means

EDGES = (3, 2, 4)


def test_cubes_average_their_voxels_where_they_are_mostly_brain():
    mask = np.zeros((8, 8, 4), bool)
    mask[:4] = True
    mask[4, 0] = True  # four voxels of the next cube
    values = np.random.default_rng(0).standard_normal((30, mask.sum())).astype(np.float32)
    means = cube_means(mask, (4, 4, 4)) @ values.T
    places = np.argwhere(mask)
    for number, chosen in enumerate((places[:, 1] < 4, places[:, 1] >= 4)):
        inside = chosen & (places[:, 0] < 4)
        np.testing.assert_allclose(means[number], values[:, inside].mean(1), atol=1e-6)
    assert not means[2].any()


def test_a_field_that_is_linear_in_space_is_interpolated_exactly_within_the_outer_centres():
    brain = np.ones((12, 8, 16), bool)
    places = np.argwhere(brain)
    field = places @ np.array([0.3, -1.2, 0.5]) + 4
    found = between_cubes(brain, EDGES) @ (cube_means(brain, EDGES) @ field)
    centred = (places + 0.5) / EDGES
    inner = ((centred >= 0.5) & (centred <= np.array(brain.shape) / EDGES - 0.5)).all(1)
    assert inner.sum() > 300
    np.testing.assert_allclose(found[inner], field[inner], atol=1e-5)


def test_cubes_that_are_mostly_outside_have_no_say():
    brain = np.zeros((9, 8, 8), bool)
    brain[:3] = True
    brain[3, 0, 0] = True  # of a cube of its own
    means, between = cube_means(brain, EDGES), between_cubes(brain, EDGES)
    assert means.shape == between.shape[::-1] == (9, brain.sum())
    np.testing.assert_allclose(between.sum(1), 1, atol=1e-5)
    outside = np.flatnonzero(means.sum(1) == 0)
    assert outside.size == 1
    assert not between[:, outside].toarray().any()


def test_where_no_cube_is_brain_nothing_is_known():
    brain = np.zeros((9, 8, 8), bool)
    brain[0, 0, 0] = True
    assert not cube_means(brain, EDGES).toarray().any()
    assert not between_cubes(brain, EDGES).toarray().any()
