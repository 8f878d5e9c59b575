"""Tests of the carrier and the residual: one splits into both, and both merge again."""

from dataclasses import replace

import numpy as np
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix

from fmrisynth.bids.images import Bold
from fmrisynth.preprocess.carrier import drift_basis, least_squares, merge, remove_drift, split

HIGH_PASS = 1 / 128


SHAPE = (7, 8, 6)


def make_bold(n_volumes=100, t_r=2.0, seed=0):
    """Anatomy, noise, a linear trend and a slow wave, in a box of brain."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1, 1:-1] = True
    mean = rng.uniform(500, 1500, SHAPE)
    times = np.arange(n_volumes) * t_r
    slow = 0.02 * times / times[-1] + 0.01 * np.cos(2 * np.pi * times / 180)
    noise = 0.01 * rng.standard_normal((*SHAPE, n_volumes))
    data = mean[..., None] * (1 + slow + noise)
    return Bold(data.astype(np.float32), np.diag([4.0, 4, 4, 1]), mask, t_r)


@pytest.mark.parametrize(("n_volumes", "t_r"), [(100, 2.0), (12, 2.0), (61, 0.72), (90, 3.3)])
def test_merge_is_the_inverse_of_split(n_volumes, t_r):
    bold = make_bold(n_volumes, t_r)
    carrier, residual = split(bold, HIGH_PASS)
    again = merge(carrier, residual, HIGH_PASS)
    assert again.dtype == np.float32
    np.testing.assert_allclose(again[bold.mask], bold.data[bold.mask], rtol=2e-6, atol=2e-3)
    assert (again[~bold.mask] == 0).all()


def test_residuals_have_no_mean_and_no_drift():
    bold = make_bold()
    carrier, residual = split(bold, HIGH_PASS)
    series = residual[bold.mask].T
    assert np.abs(series.mean(0)).max() < 1e-3
    basis = drift_basis(len(series), bold.t_r, HIGH_PASS)
    assert basis.shape[1] >= 2
    assert np.abs(basis.T @ series).max() < 1e-2 * np.linalg.norm(series, axis=0).max()
    assert (residual[~bold.mask] == 0).all()
    np.testing.assert_allclose(carrier.noise_sd[bold.mask], series.std(0), rtol=1e-4)
    # 1 % of white noise was put in
    assert float(np.median(carrier.noise_sd[bold.mask])) == pytest.approx(1.0, abs=0.1)


def test_what_is_evoked_is_no_noise():
    """The level of noise does not depend on responses, and counts the regressors' freedom."""
    bold, rng = make_bold(200), np.random.default_rng(1)
    basis = drift_basis(200, bold.t_r, HIGH_PASS)
    evoked = remove_drift(rng.standard_normal((200, 3)), basis).astype(np.float32)
    mean = bold.data.mean(3, keepdims=True)
    response = (evoked @ rng.standard_normal((3, int(np.prod(SHAPE))))).T.reshape(*SHAPE, 200)
    loud = replace(bold, data=(bold.data + 0.02 * mean * response).astype(np.float32))
    plain = split(loud, HIGH_PASS)[0].noise_sd[bold.mask]
    found, expected = (split(b, HIGH_PASS, evoked)[0].noise_sd[bold.mask] for b in (loud, bold))
    assert np.median(plain) > 2 * np.median(found)
    np.testing.assert_allclose(found, expected, rtol=2e-2)
    assert np.mean(expected**2) == pytest.approx(0.95, abs=0.03)  # drift has taken its share
    # neither residual nor carrier change otherwise
    np.testing.assert_array_equal(split(loud, HIGH_PASS)[1], split(loud, HIGH_PASS, evoked)[1])


def test_regressors_that_are_zero_or_twice_there_take_no_freedom():
    rng = np.random.default_rng(0)
    x, series = rng.standard_normal((50, 2)), rng.standard_normal((50, 7)).astype(np.float32)
    design = np.column_stack([x, np.zeros(50), x[:, 0] - 2 * x[:, 1]])
    rest, used = least_squares(design, series)
    assert used == 2
    expected = series - x @ np.linalg.lstsq(x, series, rcond=None)[0]
    np.testing.assert_allclose(rest, expected, atol=1e-5)
    assert rest.dtype == np.float32
    untouched, none = least_squares(np.zeros((50, 3)), series)
    assert none == 0
    assert np.array_equal(untouched, series)


def test_residuals_are_percent_of_the_voxels_own_mean():
    bold = make_bold()
    brighter = replace(bold, data=bold.data * np.float32(7.5))
    one, other = split(bold, HIGH_PASS)[1], split(brighter, HIGH_PASS)[1]
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_voxels_without_signal_leave_the_carriers_mask():
    bold = make_bold()
    data = bold.data.copy()
    data[2, 2, 2] *= 1e-3
    data[3, 3, 3] = 0
    carrier, residual = split(replace(bold, data=data), HIGH_PASS)
    expected = bold.mask.copy()
    expected[2, 2, 2] = expected[3, 3, 3] = False
    assert (carrier.mask == expected).all()
    assert np.isfinite(residual).all()
    assert (residual[~expected] == 0).all()


@pytest.mark.parametrize(("n_volumes", "t_r"), [(8, 2.0), (48, 2.0), (284, 0.72)])
def test_the_drift_basis_is_orthonormal_and_spans_nilearns(n_volumes, t_r):
    basis = drift_basis(n_volumes, t_r, HIGH_PASS)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-8)
    np.testing.assert_allclose(basis.sum(0), 0, atol=1e-6)
    theirs = make_first_level_design_matrix(
        np.arange(n_volumes) * t_r, drift_model="cosine", high_pass=HIGH_PASS
    ).to_numpy()
    assert np.abs(remove_drift(theirs, basis)).max() < 1e-6
