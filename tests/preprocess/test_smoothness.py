"""Smoothness and the correlation of neighbours: closed forms."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fmrisynth.preprocess.smoothness import (
    FWHM_PER_SIGMA,
    correlation_of_fwhm,
    fwhm_of_correlation,
    neighbours,
)


@pytest.mark.parametrize("fwhm", [1.5, 4.0, 12.0])
@pytest.mark.parametrize("edge", [1.0, 3.0])
def test_correlation_and_smoothness_are_inverse(fwhm, edge):
    assert fwhm_of_correlation(correlation_of_fwhm(fwhm, edge), edge) == pytest.approx(fwhm)


def test_without_smoothness_neighbours_are_not_correlated():
    assert correlation_of_fwhm(0.0, 2.0) == 0


def test_filtered_noise_has_the_correlation_of_its_filter():
    noise = np.random.default_rng(0).standard_normal((48, 48, 48))
    smooth = gaussian_filter(noise, 5.0 / FWHM_PER_SIGMA / 2.0, mode="wrap")
    near, far = neighbours(np.ones(noise.shape, bool), 1)
    seen = np.corrcoef(smooth.ravel()[near], smooth.ravel()[far])[0, 1]
    # the filter's autocorrelation is wider than the filter by √2, which Forman's formula takes up
    assert seen == pytest.approx(correlation_of_fwhm(5.0, 2.0), abs=0.01)
