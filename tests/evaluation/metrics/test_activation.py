"""Group maps compared: correlation, RSA, Top-1 and slope have the properties of their names."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.amplitude import effect_slope
from fmrisynth.evaluation.measures.correlation import map_correlation
from fmrisynth.evaluation.measures.identification import identification_matrix, top1
from fmrisynth.evaluation.measures.rsa import dissimilarity, rsa
from fmrisynth.evaluation.metrics.overlap import dice, strongest


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def maps(rng):
    return rng.normal(size=(7, 500)) + rng.normal(size=500)


def test_identical_maps_are_perfect(maps):
    assert map_correlation(maps, maps) == pytest.approx(1.0)
    assert top1(identification_matrix(maps, maps)) == 1.0
    assert rsa(maps, maps).spearman == pytest.approx(1.0)
    assert effect_slope(maps, maps) == pytest.approx(1.0)
    assert dice(strongest(maps), strongest(maps)) == 1.0


def test_corr_and_rsa_ignore_scale_and_offset_and_slope_does_not(maps):
    other = 3.0 * maps - 5.0
    assert map_correlation(other, maps) == pytest.approx(1.0)
    assert rsa(other, maps).pearson == pytest.approx(1.0)
    assert effect_slope(other, maps) == pytest.approx(3.0)


def test_shuffled_conditions_are_at_chance(rng):
    maps = rng.normal(size=(7, 500))
    hits = [top1(identification_matrix(maps[rng.permutation(7)], maps)) for _ in range(400)]
    assert np.mean(hits) == pytest.approx(1 / 7, abs=0.05)


def test_equal_maps_for_all_conditions_recognise_none(maps):
    assert top1(identification_matrix(np.repeat(maps[:1], 7, axis=0), maps)) <= 1 / 7


def test_rsa_reports_its_pairs_and_refuses_two(maps):
    assert rsa(maps, maps).n_pairs == 21
    assert np.isnan(rsa(maps[:2], maps[:2]).spearman)
    with_missing = maps.copy()
    with_missing[0] = np.nan
    assert rsa(with_missing, maps).n_pairs == 15


def test_dissimilarity_is_zero_on_its_diagonal(maps):
    assert np.diag(dissimilarity(maps)) == pytest.approx(0.0, abs=1e-12)


def test_missing_and_constant_maps_are_nan_not_zero(maps):
    broken = maps.copy()
    broken[0], broken[1] = np.nan, 2.0
    assert np.isnan(map_correlation(broken, maps)[:2]).all()
    assert np.isfinite(map_correlation(broken, maps)[2:]).all()
    assert np.isnan(effect_slope(maps, broken)[1])


def test_noise_in_the_reference_lowers_the_slope(maps, rng):
    noisy = maps + rng.normal(size=maps.shape) * maps.std()
    assert effect_slope(maps, noisy).mean() == pytest.approx(0.5, abs=0.1)
