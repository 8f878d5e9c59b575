"""Noise that the decoder leaves out: a region has its level, whatever is drawn in a run."""

import numpy as np
import pytest

from fmrisynth.preprocess.carrier import least_squares
from fmrisynth.synthesis.missing_noise import missing_sd, temporal_sd

EDGES = np.full(3, 4.0)


@pytest.fixture
def brain() -> np.ndarray:
    grid = np.indices((16, 16, 16)) - 7.5
    return np.asarray(np.square(grid).sum(0) < 49)


def total(
    brain: np.ndarray,
    wanted: np.ndarray,
    expected: np.ndarray,
    drawn: np.ndarray,
    error: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Compute the missing noise, and the mean standard deviation of what it is added to."""
    missing = missing_sd(wanted, expected, drawn, error, brain, EDGES)
    return missing, float(np.hypot(drawn, missing).mean())


def test_each_voxel_has_what_it_lacks(brain):
    size = int(brain.sum())
    wanted = np.random.default_rng(0).uniform(1.0, 2.0, size)
    expected, error = np.full(size, 0.5), np.full(size, 0.5)
    missing, _ = total(brain, wanted, expected, expected, error)
    np.testing.assert_allclose(np.square(missing) + 0.25, np.square(wanted), rtol=1e-5)


def test_a_region_has_its_level_where_single_voxels_have_too_much(brain):
    size = int(brain.sum())
    wanted = np.random.default_rng(0).uniform(0.4, 2.0, size)
    expected, error = np.full(size, 1.0), np.full(size, 0.6)
    assert (wanted < expected).mean() > 0.3
    missing, mean = total(brain, wanted, expected, expected, error)
    assert mean == pytest.approx(wanted.mean(), rel=0.01)
    assert missing.min() >= 0.3 - 1e-6


@pytest.mark.parametrize("luck", [0.8, 1.0, 1.2])
def test_the_level_does_not_depend_on_what_is_drawn(brain, luck):
    rng = np.random.default_rng(1)
    size = int(brain.sum())
    wanted, expected, error = np.full(size, 1.5), np.full(size, 0.9), np.full(size, 0.4)
    drawn = luck * expected * np.exp(0.2 * rng.standard_normal(size))
    _, mean = total(brain, wanted, expected, drawn, error)
    assert mean == pytest.approx(1.5, rel=0.015)


def test_what_is_too_loud_already_gets_the_least(brain):
    size = int(brain.sum())
    missing, _ = total(brain, np.full(size, 0.5), np.ones(size), np.ones(size), np.full(size, 0.6))
    np.testing.assert_allclose(missing, 0.3, rtol=1e-5)


def test_responses_are_no_noise():
    rng = np.random.default_rng(0)
    regressors = rng.standard_normal((60, 3))
    noise = least_squares(regressors, rng.standard_normal((60, 5000)))[0]
    series = noise + 10 * regressors @ rng.standard_normal((3, 5000))
    sd = temporal_sd(series, regressors)
    np.testing.assert_allclose(sd, np.sqrt(np.square(noise).sum(0) / 57), rtol=1e-6)
    alone = temporal_sd(noise, np.zeros((60, 0)))
    np.testing.assert_allclose(alone, np.sqrt(np.square(noise).mean(0)), rtol=1e-6)
