"""Properties of the metrics on arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import run_glm

from fmrisynth.errors import DataError
from fmrisynth.evaluation.cohort.maps import group_mean, span_coordinates
from fmrisynth.evaluation.cohort.samples import Samples
from fmrisynth.evaluation.measures.amplitude import effect_slope
from fmrisynth.evaluation.measures.correlation import cross_correlation, map_correlation
from fmrisynth.evaluation.measures.identification import identification_matrix, top1
from fmrisynth.evaluation.measures.networks import connectivity
from fmrisynth.evaluation.measures.resampling import (
    Figure,
    bootstrap_counts,
    interval,
    matched_draws,
)
from fmrisynth.evaluation.measures.rsa import dissimilarity, rsa
from fmrisynth.evaluation.measures.timecourses import epochs
from fmrisynth.evaluation.metrics.connectivity import fingerprint
from fmrisynth.evaluation.metrics.copying import membership_auc
from fmrisynth.evaluation.metrics.decoding import accuracy
from fmrisynth.evaluation.metrics.individuals import between_variance, participant_matrix
from fmrisynth.evaluation.metrics.overlap import dice, strongest
from fmrisynth.evaluation.metrics.timing import peak_latency, undershoot
from fmrisynth.evaluation.metrics.verdict import judge
from fmrisynth.evaluation.runs import noise
from fmrisynth.evaluation.runs.glm import GlmSettings, design_matrix, fit_run, percent_signal_change


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def maps(rng):
    return rng.normal(size=(7, 500)) + rng.normal(size=500)


def _events(*rows):
    return pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])


# Activation ---------------------------------------------------------------------------------


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


def test_correlation_equals_numpy(maps, rng):
    other = rng.normal(size=(4, 500))
    expected = np.corrcoef(maps, other)[:7, 7:]
    np.testing.assert_allclose(cross_correlation(maps, other), expected, atol=1e-12)


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


def test_dice_of_unrelated_maps_is_the_share(rng):
    first, second = rng.normal(size=(2, 1, 20_000))
    assert dice(strongest(first), strongest(second)) == pytest.approx(0.05, abs=0.02)


# Coordinates --------------------------------------------------------------------------------


def test_coordinates_keep_every_figure(rng):
    stack = (rng.normal(size=(20, 3000)) + 4.0).astype(np.float32)
    coordinates = span_coordinates(stack)
    assert coordinates.shape[1] <= 21
    np.testing.assert_allclose(coordinates.sum(axis=1), 0.0, atol=1e-8)
    for measure in (map_correlation, effect_slope):
        np.testing.assert_allclose(
            measure(coordinates[:10], coordinates[10:]), measure(stack[:10], stack[10:]), atol=1e-4
        )
    mean_voxels, mean_coordinates = stack[:5].mean(axis=0), coordinates[:5].mean(axis=0)
    np.testing.assert_allclose(
        cross_correlation(mean_coordinates[None], coordinates[5:]),
        cross_correlation(mean_voxels[None], stack[5:]),
        atol=1e-4,
    )


def test_group_mean_leaves_out_missing_participants(rng):
    maps = rng.normal(size=(3, 2, 5))
    maps[0, 1] = np.nan
    group = group_mean(maps)
    np.testing.assert_allclose(group[1], maps[1:, 1].mean(axis=0))
    weighted = group_mean(maps, np.array([3, 0, 0]))
    np.testing.assert_allclose(weighted[0], maps[0, 0])
    assert np.isnan(weighted[1]).all()


# First level --------------------------------------------------------------------------------


def _autoregressive(rng, n_voxels, n_volumes, coefficient):
    noise = rng.normal(size=(n_voxels, n_volumes))
    for t in range(1, n_volumes):
        noise[:, t] += coefficient * noise[:, t - 1]
    return noise


def test_glm_equals_nilearn(rng):
    settings = GlmSettings()
    data = 100 + _autoregressive(rng, 200, 60, 0.4)
    events = _events((5, 10, "a"), (30, 10, "b"), (60, 10, "a"), (90, 10, "b"))
    design = design_matrix(events, 60, 2.0, 0.0, settings)
    model = fit_run(data, design, settings)
    labels, results = run_glm(
        percent_signal_change(data).T.astype(float), design.to_numpy(), "ar1", settings.bins
    )
    for label, result in results.items():
        np.testing.assert_allclose(
            model.effects[:, labels == label], result.theta[:2], rtol=1e-3, atol=1e-4
        )


def test_known_effects_are_found_in_percent(rng):
    settings = GlmSettings()
    events = _events((10, 15, "a"), (50, 15, "b"), (90, 15, "a"), (130, 15, "b"))
    design = design_matrix(events, 90, 2.0, 0.0, settings)
    truth = np.array([[2.0], [-1.0]])
    response = (design.to_numpy()[:, :2] @ truth).T
    data = 850.0 * (1 + (response + 0.1 * rng.normal(size=(40, 90))) / 100)
    model = fit_run(data, design, settings)
    np.testing.assert_allclose(model.effects.mean(axis=1), truth[:, 0], atol=0.1)


@pytest.mark.parametrize("name", ["constant", "drift_1", "a b", "1", "$x$", "trial_type_0001"])
def test_any_name_may_be_a_trial_type(name):
    events = _events((5, 10, name), (40, 10, "other"))
    design = design_matrix(events, 40, 2.0, 0.0, GlmSettings())
    assert list(design.columns[:2]) == sorted([name, "other"])
    assert design.attrs["n_trial_types"] == 2
    assert np.ptp(design.to_numpy()[:, :2], axis=0).min() > 0.1


def test_trial_types_without_a_response_in_the_run_are_left_out():
    events = _events((5, 10, "a"), (500, 10, "late"))
    design = design_matrix(events, 40, 2.0, 0.0, GlmSettings())
    assert design.attrs["n_trial_types"] == 1
    nothing = design_matrix(_events((500, 10, "late")), 40, 2.0, 0.0, GlmSettings())
    with pytest.raises(DataError, match="no event"):
        fit_run(np.ones((3, 40)), nothing, GlmSettings())


# Time series --------------------------------------------------------------------------------


def test_autocorrelation_of_a_known_process(rng):
    lags = noise.autocorrelation(_autoregressive(rng, 300, 2000, 0.5))
    np.testing.assert_allclose(lags, 0.5 ** np.arange(1, 6), atol=0.02)
    assert np.isnan(noise.autocorrelation(rng.normal(size=(5, 4)))[3:]).all()


def test_smoothness_of_smoothed_noise_is_that_of_the_kernel(rng):
    from scipy.ndimage import gaussian_filter

    fwhm, size = 10.0, 4.0
    volumes = rng.normal(size=(24, 24, 24, 40))
    sigma = fwhm / np.sqrt(8 * np.log(2)) / size
    smooth = gaussian_filter(volumes, (sigma, sigma, sigma, 0))
    mask = np.ones((24, 24, 24), dtype=bool)
    mask[:3] = False
    estimate = noise.smoothness_fwhm(smooth[mask], mask, np.full(3, size))
    # Noise that is white in a voxel has a smoothness of its own, the voxel's.
    np.testing.assert_allclose(estimate, fwhm, rtol=0.1)
    white = noise.smoothness_fwhm(volumes[mask], mask, np.full(3, size))
    assert (white < 3.0).all()


def test_spectrum_sums_to_one_and_knows_colour(rng):
    white = noise.power_spectrum(rng.normal(size=(400, 96)))
    red = noise.power_spectrum(_autoregressive(rng, 400, 96, 0.6))
    assert white.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(noise.band_quarters(white), 0.25, atol=0.02)
    assert noise.band_quarters(red)[0] > 0.5


def test_temporal_sd_in_percent(rng):
    assert np.median(noise.temporal_sd(2.5 * rng.normal(size=(50, 4000)))) == pytest.approx(
        2.5, rel=0.02
    )


# Individuals, networks, copies --------------------------------------------------------------


def test_participants_are_recognised_beyond_the_group_map(rng):
    group, own = rng.normal(size=(2, 400)), rng.normal(size=(4, 2, 400))
    halves = [10 * group + own + 0.3 * rng.normal(size=own.shape) for _ in range(2)]
    matrix = participant_matrix(*halves, group)
    assert top1(matrix) == 1.0
    assert abs(matrix[~np.eye(4, dtype=bool)].mean()) < 0.1


def test_variance_between_participants_is_free_of_noise(rng):
    own = rng.normal(size=(40, 1, 300))
    halves = [own + 2.0 * rng.normal(size=own.shape) for _ in range(2)]
    assert between_variance(*halves)[0] == pytest.approx(300, rel=0.15)
    noise_alone = [2.0 * rng.normal(size=own.shape) for _ in range(2)]
    assert abs(between_variance(*noise_alone)[0]) < 60


def test_membership_is_half_for_equal_scores_and_one_for_copies(rng):
    same = rng.normal(size=(2, 300))
    assert membership_auc(*same) == pytest.approx(0.5, abs=0.06)
    assert membership_auc(same[0] + 10, same[1]) == 1.0
    assert np.isnan(membership_auc(np.zeros(0), same[1]))


def test_fingerprint_tells_same_from_different(rng):
    own = np.repeat(rng.normal(size=(5, 200)), 3, axis=0)
    same, different = fingerprint(own + 0.5 * rng.normal(size=own.shape), list("aaabbbcccdddeee"))
    assert same > 0.6
    assert different < 0.0


def test_connectivity_is_the_transformed_correlation_of_parcels(rng):
    common = rng.normal(size=200)
    series = np.stack([common, common, rng.normal(size=200)]) + 1e-3 * rng.normal(size=(3, 200))
    pairs = connectivity(series, np.array([0, 1, 2]))
    assert np.tanh(pairs[0]) > 0.99
    assert abs(np.tanh(pairs[1])) < 0.2


def test_decoding_recognises_patterns_and_not_noise(rng):
    patterns = rng.normal(size=(4, 50))
    labels = np.tile(np.arange(4), 20)
    people = np.repeat(["a", "b"], 40)
    good = Samples(patterns[labels] + rng.normal(size=(80, 50)), labels, people)
    noise_alone = Samples(rng.normal(size=(80, 50)), labels, people)
    assert accuracy(good.of(["a"]), good.of(["b"])).mean() > 0.9
    assert accuracy(noise_alone.of(["a"]), good.of(["b"])).mean() < 0.55


# Time courses -------------------------------------------------------------------------------


def test_close_events_are_one_epoch():
    events = _events((0, 2, "a"), (4, 2, "b"), (30, 1, "a"), (32, 1, "c"))
    onsets, durations = epochs(events, ["a", "b"])
    np.testing.assert_allclose(onsets, [0, 30])
    np.testing.assert_allclose(durations, [6, 1])


def test_peak_and_undershoot_of_a_canonical_response():
    times = np.arange(-6.0, 30.0, 1.0)
    shape = lambda t, peak: np.where(t > 0, np.exp(-((t - peak) ** 2) / 8), 0.0)  # noqa: E731
    course = shape(times, 5.3) - 0.2 * shape(times, 15.0)
    assert peak_latency(times, course, 1.0) == pytest.approx(5.3, abs=0.1)
    assert undershoot(times, course, 1.0) == pytest.approx(-0.2, abs=0.02)
    assert np.isnan(peak_latency(times, -course - 1, 1.0))


# Resampling and verdict ---------------------------------------------------------------------


def test_bootstrap_samples_are_as_large_as_the_cohort(rng):
    assert (bootstrap_counts(5, rng).sum(axis=1) == 5).all()
    assert len(bootstrap_counts(1, rng)) == 0


def test_interval_holds_the_value_and_covers_the_truth(rng):
    covered = 0
    for _ in range(200):
        sample = rng.normal(1.0, 1.0, 20)
        means = bootstrap_counts(20, rng, 300) @ sample / 20
        low, high = interval(sample.mean(), means)
        assert low <= sample.mean() <= high
        covered += low <= 1.0 <= high
    assert 0.85 <= covered / 200 <= 0.99


def test_draws_are_matched_in_size(rng):
    for n_real, n_training in ((3, 10), (5, 2), (4, 4)):
        for ours, theirs in matched_draws(n_real, n_training, rng):
            assert len(ours) == len(theirs) == min(n_real, n_training)
            assert len(set(theirs)) == len(theirs)
    assert matched_draws(3, 0, rng) == []


@pytest.mark.parametrize(
    ("metric", "figure", "passed"),
    [
        ("corr", Figure(0.9, ceiling=1.0), True),
        ("corr", Figure(0.89, ceiling=1.0), False),
        ("corr", Figure(0.9), None),
        ("top1", Figure(1.0, ceiling=1.0), True),
        ("top1", Figure(6 / 7, ceiling=1.0), False),
        ("slope", Figure(1.1, ceiling=1.0), True),
        ("slope", Figure(1.25, ceiling=1.0), False),
        ("slope", Figure(0.75, ceiling=1.0), False),
        ("lag1_ratio", Figure(0.91), True),
        ("lag1_ratio", Figure(1.11), False),
        ("copied_share", Figure(0.0), True),
        ("copied_share", Figure(0.01), False),
        ("membership_auc", Figure(0.7, low=0.45, high=0.9), True),
        ("membership_auc", Figure(0.7, low=0.6, high=0.8), False),
    ],
)
def test_rules(metric, figure, passed):
    judgement = verdict_of(metric, figure)
    assert judgement.passed is passed
    assert bool(judgement.reason) == (passed is None)


def verdict_of(metric, figure, retest=None):
    found = judge({metric: figure}, {} if retest is None else {metric: retest})
    return next(j for j in found if j.rule.metric == metric)


@pytest.mark.parametrize(
    ("slope", "retest", "passed"),
    [
        (0.48, None, True),  # 0.8 of the ceiling of 0.6
        (0.47, None, False),
        (0.72, None, True),  # 1.2 of it
        (0.73, None, False),
        (0.73, 0.3, False),  # the same people have less than other people: 1.2 stays
        (0.9, 0.85, True),  # 2 · .85 / 1.85 = .92 between whole sets of runs
        (1.05, 0.85, False),
    ],
)
def test_effects_are_as_large_as_other_people_s_or_those_of_the_same_people(slope, retest, passed):
    retest = None if retest is None else Figure(retest)
    assert verdict_of("slope", Figure(slope, ceiling=0.6), retest).passed is passed


def test_what_cannot_be_judged_says_why():
    for judgement in judge({}):
        assert judgement.passed is None
        assert judgement.reason.startswith("this needs ")
    assert "no ceiling" in verdict_of("rsa", Figure(0.5)).reason
    wide = Figure(0.3, low=-0.2, high=0.8, ceiling=1.0)
    assert "too few participants" in verdict_of("diversity_participants_ratio", wide).reason
    chance = Figure(0.51, low=0.05, high=0.98, ceiling=0.63)
    assert "0.51 and 0.54 is asked" in verdict_of("rsa", chance).reason
    assert verdict_of("corr", chance).passed is False  # Corr is no noisy figure
    narrow = Figure(0.3, low=0.2, high=0.4, ceiling=1.0)
    assert verdict_of("diversity_participants_ratio", narrow).passed is False


def test_own_maps_are_asked_for_where_real_people_can_be_told_apart():
    made = Figure(0.05, ceiling=0.3)
    apart, alike = Figure(0.3, low=0.2, floor=0.0), Figure(0.3, low=-0.1, floor=0.0)
    assert verdict_of("individual_correlation", made, apart).passed is False
    assert "cannot be told apart" in verdict_of("individual_correlation", made, alike).reason
    assert verdict_of("individual_correlation", Figure(0.16, ceiling=0.3), apart).passed is True
