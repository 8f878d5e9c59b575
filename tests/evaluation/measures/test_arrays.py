"""Properties of the second level, shifted copies, regions and shares of variance, on arrays."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.second_level import SecondLevelModel
from scipy import stats

from fmrisynth.evaluation.measures.second_level import one_sample_t, z_map
from fmrisynth.evaluation.measures.similarity import shifted_correlation
from fmrisynth.evaluation.metrics.overlap import dice, significant
from fmrisynth.evaluation.metrics.timeseries import compare_time_series
from fmrisynth.evaluation.metrics.variance import RunVectors
from fmrisynth.evaluation.runs.grids import labels_on


def test_z_maps_are_nilearn_s_and_t_is_scipy_s():
    rng = np.random.default_rng(0)
    mask = np.ones((4, 5, 6), dtype=bool)
    mask[0, 0, 0] = False
    maps = rng.normal(0.5, 1.0, (5, mask.sum())).astype(np.float32)
    missing = np.concatenate([maps, np.full((1, maps.shape[1]), np.nan)])
    t = stats.ttest_1samp(maps, 0.0).statistic
    np.testing.assert_allclose(one_sample_t(maps), t, rtol=1e-4)
    z = z_map(missing, mask, np.eye(4))
    np.testing.assert_allclose(stats.norm.sf(z), stats.t.sf(t, 4), rtol=1e-2)
    images = []
    for effect in maps:
        volume = np.zeros(mask.shape, dtype=np.float32)
        volume[mask] = effect
        images.append(nib.Nifti1Image(volume, np.eye(4)))
    model = SecondLevelModel(mask_img=nib.Nifti1Image(mask.astype(np.uint8), np.eye(4)))
    model.fit(images, design_matrix=pd.DataFrame({"intercept": np.ones(5)}))
    theirs = model.compute_contrast("intercept", output_type="z_score").get_fdata()[mask]
    np.testing.assert_allclose(z, theirs, atol=1e-4)
    assert np.isnan(z_map(maps[:1], mask, np.eye(4))).all()


def test_doubled_participants_count_twice():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 40))
    drawn = one_sample_t(maps, np.array([2, 1, 0]))
    np.testing.assert_allclose(drawn, one_sample_t(maps[[0, 0, 1]]), rtol=1e-6)


def test_significant_voxels_are_as_many_as_the_p_value_says():
    rng = np.random.default_rng(3)
    null = rng.normal(size=(6, 50_000)).astype(np.float32)
    assert significant(null).mean() == pytest.approx(0.01, abs=0.002)
    assert significant(null + 20).all()
    assert significant(null[:1]) is None
    assert np.isnan(dice(significant(null), np.zeros(50_000, dtype=bool)))


def test_the_best_shift_is_found_and_noise_has_none():
    rng = np.random.default_rng(1)
    first = rng.normal(size=(60, 48)).astype(np.float32)
    moved, longer = np.roll(first, 7, axis=1), np.pad(first, ((0, 0), (15, 5)))
    other = rng.normal(size=(60, 40)).astype(np.float32)
    found = shifted_correlation([first], [moved, longer, first[:, 20:], other])
    np.testing.assert_allclose(found[0, :3], 1.0, atol=1e-3)
    assert abs(found[0, 3]) < 0.3
    np.testing.assert_allclose(found, shifted_correlation([moved, longer, first[:, 20:], other],
                                                          [first]).T, atol=1e-4)  # fmt: skip


def test_shifts_that_leave_less_than_half_in_common_do_not_count():
    rng = np.random.default_rng(2)
    first = rng.normal(size=(60, 40)).astype(np.float32)
    second = rng.normal(size=(60, 40)).astype(np.float32)
    second[:, :15] = first[:, 25:]
    assert shifted_correlation([first], [second])[0, 0] < 0.3


def test_labels_move_to_another_grid_by_the_nearest_voxel():
    labels = np.arange(1, 9, dtype=np.int32).reshape(2, 2, 2)
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    fine = np.diag([5.0, 5.0, 5.0, 1.0])
    moved = labels_on(labels, affine, fine, (6, 4, 4))
    assert moved[0, 0, 0] == 1
    assert moved[2, 0, 0] == labels[1, 0, 0]
    assert (moved[4:] == 0).all()  # beyond the atlas


def test_a_participant_drawn_twice_is_two_participants():
    rng = np.random.default_rng(5)
    means = rng.normal(size=(4, 30)) + np.repeat(rng.normal(size=(2, 30)), 2, axis=0)
    people, tasks = np.array(["a", "a", "b", "b"]), np.array(["x", "y", "x", "y"])

    def vectors(rows, names):
        kept = means[rows]
        return RunVectors(
            kept @ kept.T,
            np.ones(len(rows)),
            np.full(len(rows), 10.0),
            {"participant": np.array(names), "task": tasks[rows]},
        )

    whole = vectors([0, 1, 2, 3], people)
    copied = vectors([0, 1, 0, 1, 2, 3], ["a", "a", "c", "c", "b", "b"])
    weights = np.array([2.0, 2.0, 1.0, 1.0])
    for factor in ("participant", "task"):
        assert whole.share(factor, weights=weights) == pytest.approx(copied.share(factor))


def test_a_figure_that_is_zero_for_real_runs_has_no_ratio():
    """Runs without any smoothness, of which the width of a Gaussian cannot be told."""
    record = SimpleNamespace(
        temporal_sd=2.0, tsnr=50.0, autocorrelation=np.full(5, 0.2), fwhm=np.zeros(3),
        spectrum=np.full(24, 1 / 24), run=None,
    )  # fmt: skip
    runs = [
        SimpleNamespace(**vars(record) | {"run": SimpleNamespace(participant=p, task="a", label=p)})
        for p in ("01", "02")
    ]
    figures = compare_time_series(runs, runs, runs, np.random.default_rng(0))
    assert figures["fwhm"].value == 0
    assert np.isnan(figures["fwhm_ratio"].value)
    assert figures["temporal_sd_ratio"].value == figures["lag1_ratio"].ceiling == 1
