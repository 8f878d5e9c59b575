"""Measures of noise find the parameters of known processes."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.runs import noise


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def _autoregressive(rng, n_voxels, n_volumes, coefficient):
    noise = rng.normal(size=(n_voxels, n_volumes))
    for t in range(1, n_volumes):
        noise[:, t] += coefficient * noise[:, t - 1]
    return noise


def test_autocorrelation_of_a_known_process(rng):
    lags = noise.autocorrelation(noise.standardised(_autoregressive(rng, 300, 2000, 0.5)))
    np.testing.assert_allclose(lags, 0.5 ** np.arange(1, 6), atol=0.02)
    assert np.isnan(noise.autocorrelation(noise.standardised(rng.normal(size=(5, 4))))[3:]).all()


def test_smoothness_of_smoothed_noise_is_that_of_the_kernel(rng):
    from scipy.ndimage import gaussian_filter

    fwhm, size = 10.0, 4.0
    volumes = rng.normal(size=(24, 24, 24, 40))
    sigma = fwhm / np.sqrt(8 * np.log(2)) / size
    smooth = gaussian_filter(volumes, (sigma, sigma, sigma, 0))
    mask = np.ones((24, 24, 24), dtype=bool)
    mask[:3] = False
    estimate = noise.smoothness_fwhm(noise.standardised(smooth[mask]), mask, np.full(3, size))
    # Noise that is white in a voxel has a smoothness of its own, the voxel's.
    np.testing.assert_allclose(estimate, fwhm, rtol=0.1)
    white = noise.smoothness_fwhm(noise.standardised(volumes[mask]), mask, np.full(3, size))
    assert (white < 3.0).all()


def test_spectrum_sums_to_one_and_knows_autocorrelation(rng):
    white = noise.power_spectrum(noise.standardised(rng.normal(size=(400, 96))))
    red = noise.power_spectrum(noise.standardised(_autoregressive(rng, 400, 96, 0.6)))
    assert white.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(noise.band_quarters(white), 0.25, atol=0.02)
    assert noise.band_quarters(red)[0] > 0.5


def test_temporal_sd_in_percent(rng):
    assert np.median(noise.temporal_sd(2.5 * rng.normal(size=(50, 4000)))) == pytest.approx(
        2.5, rel=0.02
    )


def test_tails_and_levels_of_noise_that_is_not_gaussian(rng):
    plain = rng.normal(size=(200, 300))
    assert noise.log_kurtosis(noise.standardised(plain)) == pytest.approx(np.log(3), abs=0.03)
    heavy = noise.standardised(rng.laplace(size=(200, 300)))
    assert noise.log_kurtosis(heavy) == pytest.approx(np.log(6), abs=0.25)
    spiked = plain.copy()
    spiked[:, 100] *= 4
    assert noise.frame_peak(noise.standardised(plain)) < 1.6
    assert noise.frame_peak(noise.standardised(spiked)) > 8
    louder = plain * np.repeat([1.0, 2.0], 150)
    assert noise.level_sd(plain, 2.0) < 0.05
    assert noise.level_sd(louder, 2.0) == pytest.approx(np.log(2) / 2, abs=0.05)
    assert np.isnan(noise.level_sd(plain[:, :15], 2.0))
