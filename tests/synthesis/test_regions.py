"""Regions of a run fluctuate as much, beside their voxels, as in the participant's other runs."""

import numpy as np
import pytest
import torch

from fmrisynth.model.noise.protocol import VoxelNoise
from fmrisynth.synthesis.missing_noise import temporal_sd
from fmrisynth.synthesis.regions import LARGEST_FACTOR, balance_regions, region_share

N_FRAMES = 400
EDGES = np.array([10.0, 10.0, 15.0])  # mm: cubes of 3 × 3 × 2 voxels
COMMON = 0.7


@pytest.fixture
def brain():
    mask = np.zeros((13, 12, 8), bool)
    mask[:9, :9, 2:6] = True
    mask[9, 0, 0] = True  # of a cube that is mostly outside
    return mask


@pytest.fixture
def series(brain):
    """Each voxel has its own noise of SD 1, and a course that all have; (N, V)."""
    rng = np.random.default_rng(0)
    own = rng.standard_normal((N_FRAMES, brain.sum()))
    own -= own.mean(0)
    course = rng.standard_normal(N_FRAMES)
    course = (course - course.mean()) / course.std()
    return (own + COMMON * course[:, None]).astype(np.float32)


@pytest.fixture
def regressors():
    course = np.random.default_rng(1).standard_normal((N_FRAMES, 1)).astype(np.float32)
    return course - course.mean(0)


def voxel_sd():
    return np.sqrt(1 + COMMON**2)


def rest_of(series, regressors):
    return series - regressors @ (np.linalg.pinv(regressors) @ series)


def share_of(series, regressors, brain):
    deviation = np.full(brain.sum(), voxel_sd(), np.float32)
    return region_share(series, regressors, deviation, brain, EDGES)


def balance(series, regressors, brain, wanted, seed=0):
    deviation = np.full(brain.sum(), voxel_sd(), np.float32)
    generator = torch.Generator().manual_seed(seed)
    return balance_regions(series, regressors, wanted, deviation, brain, EDGES, generator)


def test_the_share_is_that_of_what_voxels_have_in_common(series, regressors, brain):
    expected = np.sqrt(COMMON**2 + 1 / 18) / voxel_sd()
    assert share_of(series, regressors, brain) == pytest.approx(expected, rel=0.03)


def test_evoked_responses_do_not_count(series, regressors, brain):
    before = share_of(series, regressors, brain)
    assert share_of(series + 5 * regressors, regressors, brain) == pytest.approx(before, rel=1e-3)


def test_without_a_whole_region_nothing_is_known(regressors):
    brain = np.zeros((4, 4, 4), bool)
    brain[0, 0, 0] = True
    alone = np.random.default_rng(0).standard_normal((N_FRAMES, 1)).astype(np.float32)
    before = alone.copy()
    assert region_share(alone, regressors, np.ones(1), brain, EDGES) == 0
    balance(alone, regressors, brain, VoxelNoise(0.0, (0, 0, 0), 0.5))
    np.testing.assert_array_equal(alone, before)


@pytest.mark.parametrize("wanted", [0.55, 0.7])
def test_regions_get_the_share_that_is_wanted_and_responses_are_kept(
    series, regressors, brain, wanted
):
    series = series + 2 * regressors
    fit = np.linalg.pinv(regressors) @ series
    power = rest_of(series, regressors).var(0).mean()
    drawn = balance(series, regressors, brain, VoxelNoise(0.0, (0, 0, 0), wanted))
    np.testing.assert_allclose(drawn, temporal_sd(series, regressors), rtol=1e-4)
    assert share_of(series, regressors, brain) == pytest.approx(wanted, rel=5e-3)
    np.testing.assert_allclose(np.linalg.pinv(regressors) @ series, fit, atol=1e-4)
    assert rest_of(series, regressors).var(0).mean() == pytest.approx(power, rel=5e-3)


def test_noise_that_is_too_loud_is_made_quieter(series, regressors, brain):
    series *= 1.2
    balance(series, regressors, brain, VoxelNoise(0.0, (0, 0, 0), 0.6))
    loudness = np.sqrt(rest_of(series, regressors).var(0).mean())
    assert loudness == pytest.approx(voxel_sd(), rel=0.01)
    assert share_of(series, regressors, brain) == pytest.approx(0.6, rel=5e-3)


def test_the_factors_have_limits(series, regressors, brain):
    before = rest_of(series, regressors)
    balance(series, regressors, brain, VoxelNoise(0.0, (0, 0, 0), 5.0))
    after = rest_of(series, regressors)
    ratio = after.mean(1).std() / before.mean(1).std()
    assert 1.3 < ratio <= LARGEST_FACTOR + 1e-6


def test_what_is_not_known_changes_nothing(series, regressors, brain):
    before = series.copy()
    balance(series, regressors, brain, VoxelNoise(0.0, (0, 0, 0)))
    np.testing.assert_array_equal(series, before)


def test_runs_differ_as_the_participants_other_runs_do(series, regressors, brain):
    others = [VoxelNoise(0.0, (0, 0, 0), np.exp(x)) for x in (-0.6, -0.5, -0.4)]
    wanted = VoxelNoise.average(others)
    assert wanted.regions == pytest.approx(np.exp(-0.5))
    assert wanted.regions_spread == pytest.approx(0.1)
    shares = []
    for seed in range(100):
        run = series.copy()
        balance(run, regressors, brain, wanted, seed)
        shares.append(share_of(run, regressors, brain))
    assert np.std(np.log(shares)) == pytest.approx(0.1, rel=0.2)


def test_two_runs_say_nothing_of_how_runs_differ():
    wanted = VoxelNoise.average([VoxelNoise(0.0, (0, 0, 0), x) for x in (0.3, 0.6)])
    assert (wanted.regions, wanted.regions_spread) == (pytest.approx(0.18**0.5), 0)
