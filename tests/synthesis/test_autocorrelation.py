"""The memory of voxels: decoder noise makes up for what decoded noise has too much or little of."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fmrisynth.model.decoder_noise import LARGEST_CORRELATION
from fmrisynth.preprocess.carrier import drift_basis, remove_drift, removed_basis
from fmrisynth.preprocess.smoothness import FWHM_PER_SIGMA
from fmrisynth.synthesis.autocorrelation import (
    add_neighbours,
    decoder_lag1,
    decoder_neighbours,
    voxel_fwhm,
    voxel_lag1,
)

N, VOXELS, T_R, HIGH_PASS = 200, 300, 2.0, 1 / 128
NOTHING = np.zeros((N, 0))


def autoregressive(lag1, seed):
    series = np.random.default_rng(seed).standard_normal((N, VOXELS))
    for t in range(1, N):
        series[t] = lag1 * series[t - 1] + (1 - lag1**2) ** 0.5 * series[t]
    return series


def filtered(series):
    return remove_drift(series, drift_basis(N, T_R, HIGH_PASS))


@pytest.mark.parametrize("wanted", [0.15, 0.35, 0.5])
@pytest.mark.parametrize("loudness", [0.5, 1.5])
def test_voxels_have_the_memory_that_is_wanted(wanted, loudness):
    decoded = filtered(autoregressive(0.5, seed=0))
    deviation = np.full(VOXELS, loudness)
    lag1 = decoder_lag1(wanted, decoded, deviation, NOTHING, removed_basis(N, T_R, HIGH_PASS))
    total = decoded + filtered(loudness * autoregressive(lag1, seed=1))
    reachable = wanted if loudness > 1 else max(wanted, 0.3)
    assert voxel_lag1(total, NOTHING) == pytest.approx(reachable, abs=0.05)


def test_responses_are_no_memory():
    course = np.repeat([1.0, -1.0], N // 2)[:, None]
    series = filtered(autoregressive(0.0, seed=0))
    plain = voxel_lag1(series, NOTHING)
    assert voxel_lag1(series + 3 * filtered(course), filtered(course)) == pytest.approx(
        plain, abs=0.02
    )
    assert voxel_lag1(series + 3 * filtered(course), NOTHING) > plain + 0.3


def test_responses_take_slow_noise_with_them_where_memory_is_measured():
    """A short run with many slow regressors: white noise seems to be quicker than white."""
    blocks = np.repeat(np.random.default_rng(2).standard_normal((N // 20, 12)), 20, axis=0)
    evoked = filtered(blocks)
    decoded = filtered(0.3 * autoregressive(0.5, seed=0))
    removed = removed_basis(N, T_R, HIGH_PASS)
    lag1 = decoder_lag1(0.3, decoded, np.ones(VOXELS), evoked, removed)
    total = decoded + filtered(autoregressive(lag1, seed=1))
    assert voxel_lag1(total, evoked) == pytest.approx(0.3, abs=0.03)
    unaware = decoder_lag1(0.3, decoded, np.ones(VOXELS), NOTHING, removed)
    assert lag1 > unaware + 0.04


def test_without_room_nothing_is_chosen():
    decoded = filtered(autoregressive(0.5, seed=0))
    removed = removed_basis(N, T_R, HIGH_PASS)
    assert decoder_lag1(0.9, decoded, np.zeros(VOXELS), NOTHING, removed) == 0
    assert voxel_lag1(np.zeros((N, 4)), NOTHING) == 0


def test_intensities_cost_memory_that_is_made_up_for():
    rng = np.random.default_rng(5)
    intensity = np.exp(0.7 * rng.standard_normal(N))[:, None]
    agreement = float((intensity[1:] * intensity[:-1]).mean() / np.square(intensity).mean())
    decoded = filtered(0.1 * autoregressive(0.0, seed=0))
    removed = removed_basis(N, T_R, HIGH_PASS)
    lag1 = decoder_lag1(0.25, decoded, np.ones(VOXELS), NOTHING, removed, agreement)
    total = decoded + filtered(intensity * autoregressive(lag1, seed=1))
    assert agreement < 0.8
    assert voxel_lag1(total, NOTHING) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("correlation", [(-0.2, 0.0, 0.3), (0.0, 0.0, 0.0)])
def test_neighbours_are_correlated_along_each_axis_at_unit_variance(correlation):
    brain = np.ones((9, 10, 11), bool)
    brain[:3, :4] = False
    noise = np.random.default_rng(0).standard_normal((400, brain.sum())).astype(np.float32)
    add_neighbours(noise, brain, correlation)
    assert noise.var(0).mean() == pytest.approx(1, abs=0.02)
    assert noise.std(0).max() < 1.2
    volume = np.full((400, *brain.shape), np.nan, np.float32)
    volume[:, brain] = noise
    for axis, expected in enumerate(correlation):
        moved = np.moveaxis(volume, axis + 1, 0)
        assert np.nanmean(moved[1:] * moved[:-1]) == pytest.approx(expected, abs=0.03)


def smooth_noise(brain, fwhm, edges, seed):
    sigma = [0.0, *(fwhm / FWHM_PER_SIGMA / edges)]
    white = np.random.default_rng(seed).standard_normal((N, *brain.shape))
    return filtered(gaussian_filter(white, sigma)[:, brain])


BRAIN = np.ones((14, 15, 16), bool)
EDGES = np.array([2.0, 3.0, 4.0])


def test_the_smoothness_of_voxels_is_that_of_the_filter():
    series = smooth_noise(BRAIN, 7.0, EDGES, 0)
    evoked = filtered(np.repeat([1.0, -1.0], N // 2)[:, None])
    assert voxel_fwhm(series, NOTHING, BRAIN, EDGES) == pytest.approx((7, 7, 7), rel=0.05)
    assert voxel_fwhm(series + 3 * evoked, evoked, BRAIN, EDGES) == pytest.approx(
        (7, 7, 7), rel=0.05
    )
    assert voxel_fwhm(np.zeros((N, 8)), NOTHING, np.ones((8, 1, 1), bool), EDGES) == (0, 0, 0)


@pytest.mark.parametrize("wanted", [(3.0, 4.5, 5.5), (2.2, 3.3, 3.8)])
def test_a_run_is_as_smooth_along_each_axis_as_wanted(wanted):
    decoded = smooth_noise(BRAIN, 8.0, EDGES, 0)
    decoded /= decoded.std()
    deviation = np.full(int(BRAIN.sum()), 1.2)
    chosen = decoder_neighbours(wanted, decoded, deviation, NOTHING, BRAIN, EDGES)
    noise = np.random.default_rng(1).standard_normal(decoded.shape).astype(np.float32)
    add_neighbours(noise, BRAIN, chosen)
    total = decoded + filtered(deviation * noise)
    assert max(abs(r) for r in chosen) < LARGEST_CORRELATION
    assert voxel_fwhm(total, NOTHING, BRAIN, EDGES) == pytest.approx(wanted, rel=0.05)


def test_where_noise_can_do_nothing_it_is_as_correlated_as_it_can_be():
    decoded = smooth_noise(BRAIN, 8.0, EDGES, 0)
    quiet = np.full(int(BRAIN.sum()), 1e-6)
    assert decoder_neighbours((3, 3, 3), decoded, quiet, NOTHING, BRAIN, EDGES) == [0, 0, 0]
    loud = np.ones(int(BRAIN.sum()))
    limit = LARGEST_CORRELATION
    assert decoder_neighbours((99, 99, 99), 0 * decoded, loud, NOTHING, BRAIN, EDGES) == [limit] * 3
