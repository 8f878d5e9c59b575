"""Whitening in space: noise becomes white, and whatever is whitened can be coloured again."""

import numpy as np
import pytest

from fmrisynth.training.whitening import Whitening

D, MODES = 30, 3


@pytest.fixture
def whitening():
    rng = np.random.default_rng(0)
    return Whitening(5 * rng.standard_normal((MODES, D)), rng.uniform(0.5, 2, D))


def covariance(whitening):
    return whitening.modes.T @ whitening.modes + np.diag(whitening.variance)


def test_noise_becomes_white(whitening):
    root = np.linalg.cholesky(covariance(whitening))
    white = whitening.whiten(root.T)  # rows whose sum of products is the covariance
    np.testing.assert_allclose(white.T @ white, np.eye(D), atol=1e-9)


def test_colour_is_the_inverse(whitening):
    rows = np.random.default_rng(1).standard_normal((4, D))
    np.testing.assert_allclose(whitening.colour(whitening.whiten(rows)), rows, atol=1e-9)
    np.testing.assert_allclose(whitening.whiten(whitening.colour(rows)), rows, atol=1e-9)


def test_without_modes_it_is_a_division():
    plain = Whitening(np.zeros((1, D)), np.full(D, 4.0))
    np.testing.assert_allclose(plain.whiten(np.ones((2, D))), 0.5)
