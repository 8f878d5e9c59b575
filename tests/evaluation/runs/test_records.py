"""What a record keeps of a run."""

from types import SimpleNamespace

import numpy as np
import pytest

from fmrisynth.evaluation.runs import noise
from fmrisynth.evaluation.runs.records import TISSUES, _spectra

SHAPE = (40, 48, 40)
AFFINE = np.array([[4.0, 0, 0, -78], [0, 4, 0, -112], [0, 0, 4, -70], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def brain():
    """An ellipsoid about where the template's brain lies."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    place = index @ AFFINE[:3, :3].T + AFFINE[:3, 3] - (0, -18, 8)
    return (np.square(place / (62, 80, 55)).sum(-1) < 1) & (place[..., 2] > -40)


def spectra_in(space, brain, series):
    run = SimpleNamespace(space=space, affine=AFFINE, shape=SHAPE)
    return _spectra(run, brain, noise.standardised(series))


def test_each_tissue_has_its_own_spectrum(brain):
    series = np.random.default_rng(0).standard_normal((brain.sum(), 96)).astype(np.float32)
    whole, white = spectra_in("MNI152NLin2009cAsym", brain, series)
    np.testing.assert_allclose(whole, noise.power_spectrum(noise.standardised(series)), rtol=1e-5)
    assert white.shape == (len(TISSUES), 24)
    np.testing.assert_allclose(white.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(white[:2], 1 / 24, atol=0.01)
    places = np.argwhere(brain) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    deep = np.abs(places - (0, -18, 12)).max(1) < 26  # around the ventricles
    series[deep] = series[deep].cumsum(1)
    slow = spectra_in("MNI152NLin2009cAsym", brain, series)[1][:, :6].sum(1)
    fluid, grey = slow[TISSUES.index("cerebrospinal fluid")], slow[TISSUES.index("grey matter")]
    assert fluid > 0.6
    assert grey < 0.5


def test_outside_of_the_templates_space_no_tissue_is_known(brain):
    series = np.zeros((brain.sum(), 30), np.float32)
    series += np.sin(np.arange(30, dtype=np.float32))
    whole, tissues = spectra_in("T1w", brain, series)
    assert np.isnan(tissues).all()
    np.testing.assert_allclose(whole, noise.power_spectrum(noise.standardised(series)), rtol=1e-5)
