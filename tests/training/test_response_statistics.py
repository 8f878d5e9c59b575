"""Sufficient statistics: they hold what generalised least squares computes from all frames."""

import numpy as np
import pytest
from scipy.linalg import toeplitz
from support.latent_world import MASK, patterns, simulate

from fmrisynth.model.noise.autocovariance import extended_autocovariance
from fmrisynth.training.response_statistics import collect_statistics, residual_autocovariance

# the regressors of trial types that occur: HRF and derivative of hand and foot
PRESENT = [0, 1, 2, 3]


def world(n_runs=2, **options):
    maps = np.repeat(patterns()[None], 3, 0)
    return simulate(maps, n_runs=n_runs, **options)


def collect(made, tmp_path):
    return collect_statistics(made.runs, made.data, 0, tmp_path)


@pytest.mark.parametrize("n_runs", [1, 2, 3])
def test_they_give_the_generalised_least_squares_estimate(tmp_path, n_runs):
    """Of one participant, computed from the stacked and whitened frames of all runs."""
    made = world(n_runs)
    found = collect(made, tmp_path)
    lags = residual_autocovariance(made.runs, 0)
    assert found.participants == ("00", "01", "02")
    for s, label in enumerate(found.participants):
        rows, series = [], []
        for i, participant in enumerate(made.runs.participants):
            if participant == label:
                x, z = made.runs.regressors(i), made.runs.standardised(i)
                covariance = toeplitz(extended_autocovariance(lags, len(x)))
                white = np.linalg.inv(np.linalg.cholesky(covariance))
                rows.append(white @ x)
                series.append(white @ z)
        expected = np.linalg.lstsq(
            np.concatenate(rows)[:, PRESENT], np.concatenate(series), rcond=None
        )[0]
        moments, products = found.total([s])
        estimate = np.linalg.solve(moments[np.ix_(PRESENT, PRESENT)], products[PRESENT])
        np.testing.assert_allclose(estimate, expected, atol=1e-3)


def test_a_total_is_the_sum_of_participants_and_halves(tmp_path):
    found = collect(world(), tmp_path)
    assert found.moments.shape == (3, 2, 8, 8)
    assert found.products.shape == (3, 2, 8, int(MASK.sum()))
    assert all(found.moments[:, half].any() and found.products[0][half].any() for half in (0, 1))
    moments, products = found.total([0, 2])
    np.testing.assert_allclose(moments, found.moments[0].sum(0) + found.moments[2].sum(0))
    np.testing.assert_allclose(
        products, found.products[0].sum(0) + found.products[2].sum(0), rtol=1e-4, atol=1e-4
    )


def test_halves_are_runs(tmp_path):
    """What changes in the second run of each participant does not reach the first half."""
    pair = world(2, noise=0.5)
    before = collect(pair, tmp_path)
    pair.runs.latents[:] = [z if i % 2 == 0 else 5 * z for i, z in enumerate(pair.runs.latents)]
    after = collect(pair, tmp_path)
    # the autocovariance is pooled over all runs and differs a little
    changes = np.abs([a - b for a, b in zip(after.products, before.products, strict=True)])
    first, second = (changes[:, h].mean() for h in (0, 1))
    assert second > 0
    assert first < 0.05 * second


def test_the_only_run_is_cut_in_two(tmp_path):
    """After whitening, which looks back alone: neither half needs the frames of the other."""
    made = world(1)
    found, x = collect(made, tmp_path), made.runs.regressors(1)
    covariance = toeplitz(extended_autocovariance(residual_autocovariance(made.runs, 0), len(x)))
    white = np.linalg.inv(np.linalg.cholesky(covariance)) @ x
    for half, part in enumerate((slice(None, 24), slice(24, None))):
        np.testing.assert_allclose(found.moments[1, half], white[part].T @ white[part], atol=1e-6)


def test_a_loud_participant_counts_less(tmp_path):
    """Weights are inverse variances: a level of 2 leaves a quarter of the moments."""
    quiet = collect(world(noise=0.5), tmp_path)
    loud = collect(world(noise=0.5, levels=np.array([1.0, 2.0, 4.0])), tmp_path)
    scale = loud.moments[0].sum() / quiet.moments[0].sum()  # autocovariances differ a little
    for s, level in enumerate((1.0, 2.0, 4.0)):
        ratio = np.trace(loud.moments[s].sum(0)) / np.trace(quiet.moments[s].sum(0))
        assert ratio == pytest.approx(scale / level**2, rel=0.02)


def test_the_autocovariance_is_that_of_what_responses_leave():
    """White noise about strong responses has no correlation between frames."""
    lags = residual_autocovariance(world(n_runs=3, n_volumes=60).runs, 0)
    assert lags[0] == pytest.approx(1)
    assert np.abs(lags[1:]).max() < 0.04
