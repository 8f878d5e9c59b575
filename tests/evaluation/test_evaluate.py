"""The whole comparison on a tiny cohort, with planted faults."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.evaluation_cohort import (
    HELD_OUT,
    TRAINING,
    Recipe,
    save_run,
    write_cohort,
    write_copies,
    write_mean_runs,
)

from fmrisynth.bids.synthetic_sidecars import NOISE_LEVEL_KEY, OWN_RUN, PROVENANCE_KEY
from fmrisynth.errors import DataError, UsageError
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.cohort.roles import TRAINING as TRAINING_RUNS
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.export import COLUMNS, metrics_table, write_maps, write_metrics
from fmrisynth.evaluation.metrics.verdict import count, judge
from fmrisynth.evaluation.runs.grids import Grid
from fmrisynth.evaluation.runs.records import summarise_usable_runs
from fmrisynth.runtime.workers import spread

pytestmark = pytest.mark.slow

FRESH = Recipe(noise_seed=1)  # the same participants scanned again: what a perfect generator writes
PLANTED = {
    "fresh real": FRESH,
    "group mean": replace(FRESH, individual=0.0),
    "no condition": replace(FRESH, one_map=True),
    "white noise": replace(FRESH, lag1=0.0),
    "half effect": replace(FRESH, amplitude=0.5),
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    held_out = write_cohort(root / "real", HELD_OUT)
    training = write_cohort(root / "real", TRAINING)
    generators = {
        name: write_cohort(root / name, HELD_OUT, recipe) for name, recipe in PLANTED.items()
    }
    generators["copies"] = write_copies(root / "copies", training, held_out)
    generators["shifted copies"] = write_copies(root / "shifted", training, held_out, shift=9)
    generators["same for all"] = write_mean_runs(root / "same", training, held_out)
    return root, held_out, training, generators


@pytest.fixture(scope="module")
def evaluation(cohort):
    root, held_out, training, generators = cohort
    return evaluate(held_out, training, generators, work_dir=root / "work", progress=False)


def failed(evaluation, generator):
    return {
        j.metric.name
        for j in judge(evaluation.estimates[generator], evaluation.estimates[REAL])
        if j.passed is False
    }


def test_real_data_as_a_generator_pass_every_rule(evaluation):
    judgements = judge(evaluation.estimates["fresh real"], evaluation.estimates[REAL])
    assert len(judgements) >= 17
    # The cohort has no coupling that changes with the task.
    assert {j.metric.name for j in judgements if not j.passed} == {"coupling_correlation"}
    assert count(judgements).missed == 0


@pytest.mark.parametrize(
    ("generator", "metrics"),
    [
        ("group mean", {"diversity_participants_ratio", "individual_correlation"}),
        ("same for all", {"sample_similarity", "individual_correlation", "fc_fingerprint"}),
        ("no condition", {"corr", "slope"}),
        ("white noise", {"lag1_ratio", "told_apart", "power_distance"}),
        ("half effect", {"slope"}),
        ("copies", {"copied_share", "membership_auc"}),
        ("shifted copies", {"copied_share"}),
    ],
)
def test_planted_faults_are_seen(evaluation, generator, metrics):
    assert metrics <= failed(evaluation, generator)
    assert not metrics & failed(evaluation, "fresh real")


def test_half_the_effect_halves_the_slope(evaluation):
    half, fresh = (
        evaluation.estimates[name]["slope"].value for name in ("half effect", "fresh real")
    )
    assert half / fresh == pytest.approx(0.5, abs=0.07)


def test_individuals_are_recognised_where_they_are_simulated(evaluation):
    fresh, mean = (
        evaluation.estimates[name]["individual_correlation"]
        for name in ("fresh real", "group mean")
    )
    again = evaluation.estimates[REAL]["individual_correlation"].value
    assert fresh.value == pytest.approx(again, abs=0.1)
    assert fresh.ceiling < again  # what can be known of a run that is left out is less
    assert mean.value < 0.3 * fresh.value
    assert abs(fresh.floor) < 0.5 * fresh.value


def test_participants_vary_more_than_phase_encoding_and_task(evaluation):
    figures = evaluation.estimates[REAL]
    shares = [figures[f"fc_variance_{n}"].value for n in ("participant", "phase_encoding", "task")]
    assert shares[0] > 0.5
    assert shares[0] > 10 * max(shares[1:])


def test_connectivity_of_the_participant_is_found(evaluation):
    fresh = evaluation.estimates["fresh real"]
    assert fresh["fc_fingerprint"].value > 0.2
    assert fresh["fc_correlation"].value > fresh["fc_correlation"].ceiling - 0.1


def test_decoding_gains_from_good_synthetic_data_only(evaluation):
    good = evaluation.estimates["fresh real"]["decoding_synthetic"]
    bad = evaluation.estimates["no condition"]["decoding_synthetic"]
    assert good.value > good.floor + 0.3
    assert bad.value < good.value - 0.2


@pytest.mark.parametrize("name", ["corr", "top1", "dice"])
def test_real_data_scanned_again_reach_the_ceiling_and_their_interval_not_the_floor(
    evaluation, name
):
    estimate = evaluation.estimates["fresh real"][name]
    assert estimate.floor < estimate.low <= estimate.value
    assert estimate.value - estimate.floor > 0.9 * (estimate.ceiling - estimate.floor)


@pytest.mark.parametrize("name", ["rsa", "top1"])
def test_a_generator_without_conditions_lies_at_the_floor(evaluation, name):
    reference = evaluation.estimates["fresh real"][name]
    useless = evaluation.estimates["no condition"][name]
    assert abs(useless.value - reference.floor) < 0.5 * (reference.ceiling - reference.floor)


def test_top1_is_one_per_condition_and_tasks_are_the_conditions(evaluation):
    assert evaluation.conditions.names == ("faces", "hands", "words")
    assert evaluation.estimates["fresh real"]["rsa_pairs"].value == 3
    assert evaluation.estimates["fresh real"]["rsa_pairs_trial_type"].value == 15
    assert "corr_trial_type[hands/left]" in evaluation.estimates["fresh real"]


def test_no_training_participant_reaches_a_figure_of_a_generator(cohort, evaluation):
    """Whatever the training data are, values stay the same; only ceilings may move."""
    root, held_out, training, generators = cohort
    few = [run for run in training if run.participant in TRAINING[:4]]
    other = evaluate(
        held_out,
        few,
        {"fresh real": generators["fresh real"]},
        work_dir=root / "work",
        progress=False,
    )
    assert set(other.held_out) == set(HELD_OUT)
    # The regions of time courses, the parcels and the map taken out of individuals are chosen on
    # training data; every other value must not know of them.
    of_training = (
        "peak undershoot course fc_ individual decoding copied nearest membership carrier "
        "sample_similarity"
    )
    for name, figure in other.estimates["fresh real"].items():
        if not name.startswith(tuple(of_training.split())):
            mine = evaluation.estimates["fresh real"][name].value
            assert figure.value == pytest.approx(mine, rel=1e-3, abs=1e-4, nan_ok=True), name


def test_synthetic_runs_of_training_participants_are_left_out(cohort, tmp_path):
    root, held_out, training, generators = cohort
    extra = [replace(run) for run in training]  # as if the generator had written them too
    result = evaluate(
        held_out,
        training,
        {"fresh real": [*generators["fresh real"], *extra]},
        work_dir=root / "work",
        progress=False,
    )
    assert {r.run.participant for r in result.records["fresh real"]} == set(HELD_OUT)


def test_a_participant_on_both_sides_is_refused(cohort, tmp_path):
    _, held_out, training, generators = cohort
    with pytest.raises(UsageError, match="both held out and trained on"):
        evaluate(held_out, [*training, held_out[0]], generators, work_dir=tmp_path, progress=False)


def test_a_generator_without_held_out_runs_is_refused(cohort, tmp_path):
    _, held_out, training, _ = cohort
    with pytest.raises(UsageError, match="no run of the participants"):
        evaluate(held_out, training, {"other": training}, work_dir=tmp_path, progress=False)


def test_a_single_participant_is_compared_with_itself_and_the_result_says_so(cohort):
    root, held_out, _, generators = cohort
    mine = [r for r in held_out if r.participant == "07"]
    made = [r for r in generators["fresh real"] if r.participant == "07"]
    result = evaluate([], mine, {"fresh real": made}, work_dir=root / "work", progress=False)
    assert "Nothing was held out" in result.notices[0]
    assert np.isnan(result.estimates["fresh real"]["corr"].ceiling)
    assert result.estimates["fresh real"]["corr"].value > 0.3
    assert all(
        j.passed is None for j in judge(result.estimates["fresh real"]) if j.metric.name == "corr"
    )


def test_a_single_run_can_be_compared(cohort):
    root, held_out, _, generators = cohort
    made = [generators["fresh real"][0]]
    result = evaluate([], [held_out[0]], {"fresh real": made}, work_dir=root / "work",
                      progress=False)  # fmt: skip
    assert result.conditions.names == ("fear", "happy")
    assert result.estimates["fresh real"]["temporal_sd_ratio"].value == pytest.approx(1, abs=0.15)


def test_the_same_seed_gives_the_same_table(cohort):
    root, held_out, training, generators = cohort
    chosen = {"half effect": generators["half effect"]}
    first, second = (
        evaluate(held_out, training, chosen, work_dir=root / "work", progress=False)
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(metrics_table(first), metrics_table(second))


def test_the_same_runs_under_two_names_have_the_same_figures(cohort):
    root, held_out, training, generators = cohort
    chosen = dict.fromkeys(("network off", "network on"), generators["half effect"])
    found = evaluate(held_out, training, chosen, work_dir=root / "work", progress=False)
    table = metrics_table(found).set_index(["generator", "metric"])
    pd.testing.assert_frame_equal(table.loc["network on"], table.loc["network off"])
    assert found.copying["network on"] is found.copying["network off"]


def test_two_processes_find_what_one_finds(cohort, tmp_path):
    _, held_out, _, _ = cohort
    grid = Grid(held_out[0].affine, held_out[0].shape)
    found = []
    for n in (1, 2):
        with spread(n) as each:
            work_dir = tmp_path / str(n)
            found.append(
                summarise_usable_runs(
                    held_out[:3], grid, work_dir=work_dir, each=each, progress=False
                )
            )
    (one, skipped), (two, _) = found
    assert not skipped
    for first, second in zip(one, two, strict=True):
        assert first.run.label == second.run.label
        np.testing.assert_allclose(first.array("effects"), second.array("effects"), atol=1e-6)


def test_two_processes_compare_as_one_does(cohort):
    root, held_out, training, generators = cohort
    tables = []
    for n in (1, 2):
        found = evaluate(
            held_out, training, generators, work_dir=root / "work", nprocs=n, progress=False
        )
        tables.append(metrics_table(found))
    pd.testing.assert_frame_equal(*tables)


def test_a_changed_file_is_read_again(cohort, tmp_path):
    _, held_out, _, _ = cohort
    grid = Grid(held_out[0].affine, held_out[0].shape)
    events = tmp_path / "events.tsv"
    events.write_text(held_out[0].events.read_text())
    run = replace(held_out[0], events=events)
    (before,), _ = summarise_usable_runs([run], grid, work_dir=tmp_path, progress=False)
    events.write_text(events.read_text().replace("fear", "dread"))
    (after,), _ = summarise_usable_runs([run], grid, work_dir=tmp_path, progress=False)
    assert (before.trial_types, after.trial_types) == (("fear", "happy"), ("dread", "happy"))


def test_runs_on_another_grid_are_resampled(cohort, tmp_path):
    _, held_out, training, generators = cohort
    moved = []
    for run in generators["fresh real"]:
        data = nib.load(run.bold).get_fdata()
        mask = np.asarray(nib.load(run.mask).dataobj) > 0
        affine = run.affine @ np.diag([-1.0, 1.0, 1.0, 1.0])
        affine[:3, 3] = (run.affine @ [run.shape[0] - 1, 0, 0, 1])[:3]
        moved.append(
            save_run(
                tmp_path,
                run.participant,
                run.task,
                run.entities["dir"],
                data[::-1],
                mask[::-1],
                affine,
            )
        )
    both = {"straight": generators["fresh real"], "mirrored": moved}
    result = evaluate(held_out, training, both, work_dir=tmp_path / "work", progress=False)
    straight, mirrored = result.estimates["straight"], result.estimates["mirrored"]
    for name in ("corr", "rsa", "slope", "temporal_sd", "fwhm", "fc_correlation"):
        assert mirrored[name].value == pytest.approx(straight[name].value, rel=0.02), name


def test_a_run_without_usable_events_is_named(cohort, tmp_path):
    _, held_out, training, generators = cohort
    events = tmp_path / "late_events.tsv"
    events.write_text("onset\tduration\ttrial_type\n-400\t1\tfear\n")
    broken = replace(held_out[0], events=events)
    with pytest.raises(DataError, match="late_events"):
        evaluate([broken], training, generators, work_dir=tmp_path / "w", progress=False)


def test_table_and_maps_on_disk(evaluation, tmp_path):
    write_metrics(evaluation, tmp_path / "group" / "metrics.tsv")
    table = pd.read_csv(tmp_path / "group" / "metrics.tsv", sep="\t", na_values="n/a")
    assert tuple(table.columns) == COLUMNS
    assert "n/a" in (tmp_path / "group" / "metrics.tsv").read_text()
    corr = table[(table.metric == "corr") & (table.generator == "fresh real")].iloc[0]
    assert corr.value == pytest.approx(evaluation.estimates["fresh real"]["corr"].value, rel=1e-4)
    files = write_maps(evaluation, tmp_path / "group" / "maps")
    assert all(file.exists() for file in files)
    effect = nib.load(tmp_path / "group/maps/source-real_condition-hands_effect.nii.gz")
    mask = np.asarray(evaluation.mask.dataobj) > 0
    np.testing.assert_allclose(
        effect.get_fdata()[mask], evaluation.maps[REAL][1], rtol=1e-4, atol=1e-5
    )
    assert (effect.get_fdata()[~mask] == 0).all()


def test_maps_of_what_the_classifier_looks_at_show_the_planted_fault(evaluation, tmp_path):
    white, fresh = (evaluation.feature_maps[name]["lags"] for name in ("white noise", "fresh real"))
    assert np.nanmedian(white) < -0.5
    assert abs(np.nanmedian(fresh)) < 0.2
    assert abs(np.nanmedian(evaluation.feature_maps[TRAINING_RUNS]["lags"])) < 0.3
    named = {path.name: path for path in write_maps(evaluation, tmp_path)}
    written = nib.load(named["source-whitenoise_feature-lags_cohend.nii.gz"]).get_fdata()
    mask = np.asarray(evaluation.mask.dataobj) > 0
    np.testing.assert_allclose(written[mask], np.nan_to_num(white), atol=1e-5)


def test_windows_tell_white_noise_from_real_runs_and_real_runs_from_real_ones_hardly(evaluation):
    white, fresh = (
        evaluation.estimates[name]["told_apart[windows]"] for name in ("white noise", "fresh real")
    )
    assert white.value > 0.9
    assert fresh.low < 0.5 < fresh.high
    assert white.ceiling == fresh.ceiling == evaluation.estimates[REAL]["told_apart[windows]"].value


def test_copies_of_their_own_runs_are_found_in_runs_for_training_participants(cohort, tmp_path):
    """Nobody is copied in runs for held-out participants; training participants get theirs back."""
    root, held_out, training, generators = cohort
    some = [run for run in training if run.participant in TRAINING[:2]]
    fresh = write_cohort(tmp_path / "fresh", TRAINING[:2], FRESH)
    returned = [replace(run, metadata={}) for run in some]
    both = {
        "fresh": [*generators["fresh real"], *fresh],
        "returned": [*generators["fresh real"], *returned],
    }
    found = evaluate(held_out, training, both, work_dir=root / "work", progress=False)
    assert found.estimates["fresh"]["copied_share_training"].value == 0
    assert found.estimates["returned"]["copied_share_training"].value == 1
    assert found.estimates["returned"]["nearest_own"].value == pytest.approx(1)
    for name in both:
        assert found.estimates[name]["copied_share"].value == 0
        assert ("copied_share_training" in failed(found, name)) == (name == "returned")


def test_a_level_that_was_given_is_not_judged(cohort):
    root, held_out, training, generators = cohort
    given = [
        replace(run, metadata={PROVENANCE_KEY: {NOISE_LEVEL_KEY: OWN_RUN}})
        for run in generators["fresh real"]
    ]
    found = evaluate(held_out, training, {"given": given}, work_dir=root / "work", progress=False)
    judged = {j.metric.name: j for j in judge(found.estimates["given"], found.estimates[REAL])}
    assert "by construction" in judged["temporal_sd_ratio"].reason
    assert "24 of the 24" in judged["temporal_sd_ratio"].reason
    assert judged["lag1_ratio"].passed
