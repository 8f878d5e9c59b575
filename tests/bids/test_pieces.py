"""Runs are gone through in pieces; what comes out is that of whole arrays."""

from dataclasses import replace

import numpy as np
import pytest

from fmrisynth.bids.images import load_bold
from fmrisynth.bids.nifti import summarise_voxels
from fmrisynth.bids.pieces import brain_median, brain_series
from fmrisynth.bids.search import find_runs
from fmrisynth.preprocess.carrier import split
from fmrisynth.preprocess.grid import resample, resample_into


@pytest.fixture
def brain():
    return np.random.default_rng(0).random((12, 13, 11)) > 0.4


@pytest.mark.parametrize("n_volumes", [7, 8])
@pytest.mark.parametrize("spread", [0, 1, 100])
def test_the_median_of_the_brain_is_exact(brain, n_volumes, spread):
    rng = np.random.default_rng(1)
    data = rng.standard_normal((*brain.shape, n_volumes), np.float32)
    data += spread * rng.standard_normal((*brain.shape, 1), np.float32)
    assert brain_median(data, brain) == float(np.median(data[brain]))
    assert brain_median(np.zeros_like(data), brain) == 0
    data[tuple(np.argwhere(brain)[0])] = np.nan
    assert np.isnan(brain_median(data, brain))


def test_a_sample_that_misleads_does_not_move_the_median():
    brain = np.ones((2, 4096, 1), bool)
    data = np.ones((*brain.shape, 3), np.float32)
    data.reshape(-1, 3)[::2] = 5  # the voxels that are looked at first
    data.reshape(-1, 3)[1] = 2
    assert brain_median(data, brain) == float(np.median(data))


def test_pieces_are_the_brain_in_order(brain):
    data = np.random.default_rng(2).standard_normal((*brain.shape, 5))
    series = np.concatenate([piece for _, piece in brain_series(data, brain, at_once=100)])
    np.testing.assert_array_equal(series, data[brain])


@pytest.mark.parametrize("size", [0.7, 1.6])
def test_a_run_is_resampled_into_a_brain_as_onto_the_grid(brain, size):
    data = np.random.default_rng(3).standard_normal((9, 10, 8, 6), np.float32)
    affine, target = np.eye(4), np.diag([size, size, size, 1.0])
    whole = resample(data, affine, target, brain.shape)[brain]
    np.testing.assert_allclose(resample_into(data, affine, target, brain), whole, atol=1e-6)
    data[4, 4, 4, 2] = np.nan
    whole = resample(data, affine, target, brain.shape)[brain]
    np.testing.assert_array_equal(resample_into(data, affine, target, brain), whole)


def test_a_run_read_into_its_brain_is_the_same_there(tiny_bids):
    run = find_runs(tiny_bids).runs[0]
    whole, inside = load_bold(run), load_bold(run, brain_only=True)
    np.testing.assert_array_equal(inside.mask, whole.mask)
    np.testing.assert_array_equal(inside.data, np.where(whole.mask[..., None], whole.data, 0))
    carrier, residual = split(whole, 0.01)
    again, overwritten = split(replace(inside), 0.01, overwrite=True)
    np.testing.assert_array_equal(overwritten, residual)
    np.testing.assert_array_equal(again.noise_sd, carrier.noise_sd)
    assert overwritten is inside.data


def test_a_summary_sees_all_voxels():
    data = np.zeros((3, 4, 5, 6), np.float32)
    data[1, 2, 3, 4], data[0, 0, 0, 1] = -7, 3
    summary = summarise_voxels(data)
    assert (summary.lowest, summary.highest, summary.filled.sum()) == (-7, 3, 2)
    np.testing.assert_array_equal(summary.mean, data.mean(axis=3))
    data[2, 2, 2, 2] = np.nan
    assert np.isnan(summarise_voxels(data).lowest)
