"""The memory of voxels: decoder noise makes up for what decoded noise has too much or little of."""

import numpy as np
import pytest

from fmrisynth.preprocess.carrier import drift_basis, remove_drift, removed_basis
from fmrisynth.synthesis.autocorrelation import add_neighbours, decoder_lag1, voxel_lag1

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
