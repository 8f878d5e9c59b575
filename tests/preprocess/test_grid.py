"""Tests of the model grid: voxels on one lattice are copied, others are resampled in place."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fmrisynth.errors import DataError
from fmrisynth.preprocess.grid import Grid, choose_grid, continue_outside, resample


def ellipsoid(shape, centre=None):
    axes = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    centre = (np.array(shape) - 1) / 2 if centre is None else np.array(centre)
    return (((axes - centre) / (np.array(shape) * 0.35)) ** 2).sum(-1) < 1


def affine_of(size=4.0, origin=(-30.0, -40, -20), rotation=0.0, flip=False):
    affine = np.eye(4)
    turn = np.array(
        [
            [np.cos(rotation), -np.sin(rotation), 0],
            [np.sin(rotation), np.cos(rotation), 0],
            [0, 0, 1],
        ]
    )
    affine[:3, :3] = turn @ np.diag([-size if flip else size, size, size])
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize(
    "affine", [affine_of(), affine_of(rotation=0.3), affine_of(flip=True)], ids=str
)
def test_on_one_lattice_the_voxels_are_copied(affine, multiple):
    mask = ellipsoid((17, 20, 15))
    data = np.random.default_rng(0).random((17, 20, 15), np.float32)
    grid = choose_grid([(mask, affine)], 4.0, multiple)
    assert all(n % multiple == 0 for n in grid.shape)
    assert grid.mask.sum() == mask.sum()
    moved = resample(data, affine, grid.affine, grid.shape)
    np.testing.assert_array_equal(np.sort(moved[grid.mask]), np.sort(data[mask]))
    back = resample(moved, grid.affine, affine, data.shape)
    np.testing.assert_array_equal(back[mask], data[mask])
    assert np.prod(grid.shape) < mask.size or multiple > 1  # cropped to the brain


def test_a_field_of_view_that_is_shifted_by_whole_voxels_stays_on_the_lattice():
    first, second = affine_of(), affine_of(origin=(-30.0 + 8, -40 - 4, -20))
    mask = ellipsoid((17, 20, 15))
    grid = choose_grid([(mask, first), (mask, second)], None, 2)
    data = np.random.default_rng(0).random((17, 20, 15), np.float32)
    for affine in (first, second):
        moved = resample(data, affine, grid.affine, grid.shape)
        assert set(np.unique(moved)) <= set(np.unique(data)) | {0.0}
        assert set(np.unique(data[mask])) <= set(np.unique(moved))


@pytest.mark.parametrize(
    "affine",
    [
        affine_of(2.0),
        affine_of(3.1),
        affine_of(2.5, rotation=0.2),
        affine_of(2.5, flip=True),
        affine_of(6.0),
    ],
    ids=["2", "3.1", "oblique", "left-handed", "6"],
)
def test_other_voxel_sizes_are_resampled_to_the_same_place(affine):
    """A smooth image has the same values at the same place in the world, on either grid."""
    size = float(np.linalg.norm(affine[:3, 0]))
    shape = tuple(round(n / size) for n in (90, 110, 80))
    mask = ellipsoid(shape)
    grid = choose_grid([(mask, affine)], 4.0, 2)
    edge = max(4.0, size)  # never finer than the data
    np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), edge)
    assert np.sign(np.linalg.det(grid.affine)) == np.sign(np.linalg.det(affine))

    def wave(matrix, dims):
        index = np.stack(np.meshgrid(*[np.arange(n) for n in dims], indexing="ij"), -1)
        x, y, z = np.moveaxis(index @ matrix[:3, :3].T + matrix[:3, 3], -1, 0)
        return (10 + np.sin(x / 25) + np.cos(y / 30) + z / 40).astype(np.float32)

    moved = resample(wave(affine, shape), affine, grid.affine, grid.shape)
    inner = gaussian_filter(grid.mask.astype(float), 1.5) > 0.9
    assert inner.sum() > (200 if edge == 4 else 60)
    np.testing.assert_allclose(moved[inner], wave(grid.affine, grid.shape)[inner], atol=0.06)
    # the brain keeps its volume and its centre
    volume = mask.sum() * size**3
    assert grid.mask.sum() * edge**3 == pytest.approx(volume, rel=0.1)
    centre = np.argwhere(mask).mean(0) @ affine[:3, :3].T + affine[:3, 3]
    found = np.argwhere(grid.mask).mean(0) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    np.testing.assert_allclose(found, centre, atol=1.5)


def test_a_voxel_needs_its_share_of_the_masks():
    affine = affine_of()
    small, large = ellipsoid((16, 16, 16)), np.ones((16, 16, 16), bool)
    both = choose_grid([(small, affine), (large, affine)], None, 1, share=1.0)
    any_ = choose_grid([(small, affine), (large, affine)], None, 1, share=0.5)
    assert both.mask.sum() == small.sum()
    assert any_.mask.sum() == large.sum()


def test_resampling_leaves_zeros_where_there_is_no_data():
    data = np.ones((4, 4, 4, 3), np.float32)
    far = affine_of(origin=(500.0, 0, 0))
    assert (resample(data, affine_of(), far, (3, 3, 3)) == 0).all()
    assert resample(data, affine_of(), far, (3, 3, 3)).shape == (3, 3, 3, 3)


def test_a_grid_refuses_a_mask_of_another_shape():
    with pytest.raises(DataError, match="shape"):
        Grid((3, 3, 3), np.eye(4), np.ones((3, 3, 4), bool))


def test_a_block_at_the_edge_is_continued_with_the_mean_of_its_brain():
    mask = np.zeros((4, 4, 2), bool)
    mask[:3, :2] = True
    volumes = np.random.default_rng(0).standard_normal((3, 4, 4, 2)).astype(np.float16)
    continued = continue_outside(volumes, mask, 2)
    np.testing.assert_array_equal(continued[:, mask], volumes[:, mask])
    expected = volumes[:, 2, :2].astype(np.float32).mean((1, 2))
    np.testing.assert_allclose(
        continued[:, 3, :2], expected[:, None, None].repeat(2, 1).repeat(2, 2), rtol=1e-5
    )
    assert not continued[:, :, 2:].any()  # no brain in these blocks


def test_the_grid_is_never_finer_than_the_data():
    mask = np.ones((6, 6, 4), bool)
    coarse, fine = np.diag([10.0, 10.0, 10.0, 1]), np.diag([6.0, 6.0, 6.0, 1])
    grid = choose_grid([(mask, coarse)], 4.0, 1)
    np.testing.assert_allclose(grid.affine[:3, :3], coarse[:3, :3])
    assert grid.shape == mask.shape
    both = choose_grid([(mask, coarse), (mask, fine)], 4.0, 1, share=0.5)
    np.testing.assert_allclose(np.diag(both.affine)[:3], 6.0)
