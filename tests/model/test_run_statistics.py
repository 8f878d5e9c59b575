"""What is left of a run once its response is drawn is a sample of the noise."""

import numpy as np
import pytest
from scipy.linalg import toeplitz

from fmrisynth.model.noise.autocovariance import extended_autocovariance
from fmrisynth.model.run_statistics import draw_evoked, draw_products, whiten

N, D = 48, 30
LAGS = np.array([1.0, 0.5, 0.25])  # of an autoregression


def coloured(rng, n=N):
    """Noise with a covariance over frames and over latent values, (N, D)."""
    over_frames = np.linalg.cholesky(toeplitz(extended_autocovariance(LAGS, n)))
    over_values = np.diag(np.linspace(0.5, 2, D)) + 0.3 * np.eye(D, k=1)
    return over_frames @ rng.standard_normal((n, D)) @ over_values


def design(rng, k=4):
    """Slow regressors, the last of which is absent from the run."""
    slow = np.cumsum(rng.standard_normal((N, k)), axis=0)
    return np.hstack([slow - slow.mean(0), np.zeros((N, 1))])


def along(x, noise):
    """Power of noise along the regressors, whitened, by latent value."""
    white, values = whiten(LAGS, x[:, :-1], noise)
    return np.square(np.linalg.qr(white)[0].T @ values).sum(0)


@pytest.mark.parametrize("size", [0.0, 5.0])
def test_what_a_drawn_response_leaves_has_the_power_of_noise_along_the_regressors(size):
    rng = np.random.default_rng(0)
    left, of_noise, of_residual = [], [], []
    for _ in range(300):
        x, noise = design(rng), coloured(rng)
        z = x @ (size * rng.standard_normal((5, D))) + noise
        left.append(along(x, z - draw_evoked(x, z, LAGS, rng)))
        of_noise.append(along(x, noise))
        estimate = np.linalg.pinv(whiten(LAGS, x)[0]) @ whiten(LAGS, z)[0]
        of_residual.append(along(x, z - x @ estimate))
    assert np.max(of_residual) < 1e-9
    left, of_noise = np.mean(left, 0), np.mean(of_noise, 0)
    assert left.mean() == pytest.approx(of_noise.mean(), rel=0.05)
    np.testing.assert_allclose(left, of_noise, rtol=0.25)  # chance is 6 % of each


def test_it_keeps_how_values_fluctuate_together():
    rng = np.random.default_rng(1)
    drawn, true = np.zeros((D, D)), np.zeros((D, D))
    for _ in range(400):
        x, noise = whiten(LAGS, design(rng), coloured(rng))
        products, own = draw_products(x, noise, rng), x.T @ noise
        drawn, true = drawn + products.T @ products, true + own.T @ own
    neighbours = np.arange(D - 1), np.arange(1, D)
    ratio = drawn[neighbours].sum() / true[neighbours].sum()
    assert ratio == pytest.approx(1, abs=0.15)
    assert true[neighbours].sum() > 0.15 * np.trace(true)


def test_drawn_products_have_the_covariance_of_the_estimate_and_do_not_depend_on_it():
    rng = np.random.default_rng(2)
    x, sums, cross = whiten(LAGS, design(rng))[0], np.zeros((5, 5)), 0.0
    for _ in range(400):
        noise = rng.standard_normal((N, D))
        products = draw_products(x, noise, rng)
        sums += products @ products.T / D / 400
        cross += (products * (x.T @ noise)).sum() / D / 400
    np.testing.assert_allclose(sums, x.T @ x, atol=0.05 * np.abs(x.T @ x).max())
    assert abs(cross) < 0.05 * np.trace(x.T @ x)


def test_regressors_that_leave_no_frame_draw_nothing():
    rng = np.random.default_rng(3)
    x, z = rng.standard_normal((6, 8)), rng.standard_normal((6, D))
    assert not draw_products(x, z, rng).any()
    assert np.isfinite(draw_evoked(x, z, LAGS, rng)).all()


def test_a_run_without_events_evokes_nothing():
    rng = np.random.default_rng(4)
    assert not draw_evoked(np.zeros((N, 4)), coloured(rng), LAGS, rng).any()
