"""Bad runs, contrasts, samples, atlases: what a comparison takes in besides plain runs."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.evaluation_cohort import (
    AFFINE,
    HELD_OUT,
    SHAPE,
    TASKS,
    TRAINING,
    Recipe,
    write_cohort,
)

from fmrisynth.bids.synthetic_sidecars import PROVENANCE_KEY
from fmrisynth.errors import DataError, UsageError
from fmrisynth.evaluation.cohort.cohort import most_common_grid
from fmrisynth.evaluation.cohort.contrasts import Contrast
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.cohort.sources import limit_samples, match_runs, original_of
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.export import write_maps, write_metrics
from fmrisynth.evaluation.measures.copying import audit_copying, compare_real_pairs
from fmrisynth.evaluation.metrics.registry import all_metrics, describe, find_metric
from fmrisynth.evaluation.metrics.verdict import judge
from fmrisynth.evaluation.runs.atlas import Atlas
from fmrisynth.evaluation.runs.grids import Grid
from fmrisynth.evaluation.runs.records import summarise_usable_runs

pytestmark = pytest.mark.slow

FIRST, SECOND = "06", "05"
TRAINED, TESTED = TRAINING[:3], HELD_OUT[:3]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    held_out = write_cohort(root / "real", TESTED)
    training = write_cohort(root / "real", TRAINED)
    samples = [
        run
        for sample in (1, 2)
        for run in write_cohort(root / "samples", TESTED, Recipe(noise_seed=sample, sample=sample))
    ]
    samples += write_cohort(root / "samples", TRAINED[:2], Recipe(noise_seed=1, sample=1))
    again = [  # the second sample repeats the first
        run
        for sample in (1, 2)
        for run in write_cohort(root / "again", TESTED, Recipe(noise_seed=1, sample=sample))
    ]
    return root, held_out, training, {"samples": samples, "again": again}


@pytest.fixture(scope="module")
def atlas():
    labels = np.zeros(tuple(2 * n for n in SHAPE), dtype=np.int16)
    labels[: SHAPE[0]], labels[SHAPE[0] :] = 1, 2
    affine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0])  # half the voxel size
    return Atlas("halves", nib.Nifti1Image(labels, affine), {1: "left half", 2: "right half"})


@pytest.fixture(scope="module")
def evaluation(cohort, atlas):
    root, held_out, training, generators = cohort
    contrasts = (
        Contrast("fear > happy", "faces", {"fear": 1, "happy": -1}),
        Contrast("left > right", "hands", {"left": 1, "right": -1}),
        Contrast("words", "words", {"noun": 0.5, "verb": 0.5}),
    )
    broken = replace(held_out[0], bold=root / "broken_bold.nii.gz")
    broken.bold.write_bytes(held_out[0].bold.read_bytes()[:2000])
    return evaluate(
        [broken, *held_out[1:]],
        training,
        generators,
        work_dir=root / "work",
        contrasts=contrasts,
        atlas=atlas,
        progress=False,
    )


# Bad runs -----------------------------------------------------------------------------------


def test_a_bad_run_is_left_out_and_listed(cohort, evaluation):
    _, held_out, _, _ = cohort
    ((path, why),) = evaluation.skipped.items()
    assert path.name == "broken_bold.nii.gz"
    assert "broken_bold.nii.gz" in why
    assert any("1 run could not be used" in notice and why in notice
               for notice in evaluation.notices)  # fmt: skip
    assert len(evaluation.records[REAL]) == len(held_out) - 1
    assert evaluation.held_out == TESTED


def test_as_many_synthetic_runs_as_readable_real_ones_are_compared(cohort, evaluation):
    _, held_out, _, _ = cohort
    assert len(evaluation.records["samples"]) == len(held_out) - 1


@pytest.mark.parametrize("source", ["held out", "training", "generator"])
def test_a_source_of_which_nothing_is_left_is_an_error(cohort, tmp_path, source):
    _, held_out, training, generators = cohort
    gone = [replace(r, bold=tmp_path / r.bold.name) for r in held_out[:2]]
    lists = {"held out": held_out, "training": training, "generator": generators["again"]}
    if source == "training":
        gone = [replace(r, bold=tmp_path / r.bold.name) for r in training[:2]]
    lists = {name: runs[:2] for name, runs in lists.items()} | {source: gone}
    with pytest.raises(DataError, match="none of the 2 runs of") as error:
        evaluate(
            lists["held out"],
            lists["training"],
            {"made": lists["generator"]},
            work_dir=tmp_path / "work",
            progress=False,
        )
    assert gone[0].bold.name in str(error.value)


def test_the_grid_is_that_of_most_runs(cohort):
    _, held_out, _, _ = cohort
    odd = replace(held_out[0], affine=held_out[0].affine + 1.0)
    assert np.array_equal(most_common_grid([odd, *held_out[1:4]]).affine, held_out[1].affine)


# Contrasts ----------------------------------------------------------------------------------


def test_contrasts_are_compared_and_a_difference_is_the_difference_of_maps(evaluation):
    figures = evaluation.estimates["samples"]
    for name in ("corr", "slope", "dice", "dice_z", "rsa", "top1"):
        assert np.isfinite(figures[f"{name}_contrast"].value), name
    assert figures["corr_contrast"].floor < figures["corr_contrast"].value
    assert evaluation.conditions.contrasts == ("fear > happy", "left > right", "words")
    by_type = dict(zip(evaluation.conditions.trial_types, evaluation.trial_type_maps[REAL],
                       strict=True))  # fmt: skip
    expected = by_type["faces", "fear"] - by_type["faces", "happy"]
    np.testing.assert_allclose(evaluation.contrast_maps[REAL][0], expected, atol=1e-5)
    mean = (by_type["words", "noun"] + by_type["words", "verb"]) / 2
    np.testing.assert_allclose(evaluation.contrast_maps[REAL][2], mean, atol=1e-5)
    assert "corr_contrast[left > right]" in figures


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        (Contrast("a", "feet", {"left": 1}), "faces, hands, words"),
        (Contrast("a", "hands", {"left": 1, "up": -1}), "'up'.*left, right"),
        (Contrast("a", "hands", {"left": 0}), "no weight"),
    ],
)
def test_a_contrast_that_does_not_fit_lists_what_there_is(cohort, tmp_path, contrast, message):
    root, held_out, training, generators = cohort
    with pytest.raises(UsageError, match=message):
        evaluate(held_out, training, generators, work_dir=root / "work", contrasts=(contrast,),
                 progress=False)  # fmt: skip


def test_contrasts_of_one_name_are_told_apart_by_task(cohort, evaluation):
    from fmrisynth.evaluation.cohort.conditions import with_contrasts

    same = [Contrast("first", task, {TASKS[task][0]: 1}) for task in ("faces", "hands")]
    assert with_contrasts(evaluation.conditions, same).contrasts == ("faces/first", "hands/first")
    with pytest.raises(UsageError, match="given twice"):
        with_contrasts(evaluation.conditions, [same[0], same[0]])


def test_maps_of_contrasts_and_second_level_are_written(evaluation, tmp_path):
    names = {path.name for path in write_maps(evaluation, tmp_path)}
    assert "source-real_contrast-fearhappy_effect.nii.gz" in names
    assert "source-real_contrast-fearhappy_z.nii.gz" in names
    assert "source-samples_condition-hands_z.nii.gz" in names
    assert "source-samples_contrast-words_difference.nii.gz" in names
    mask = np.asarray(evaluation.mask.dataobj) > 0
    z = nib.load(tmp_path / "source-real_condition-hands_z.nii.gz").get_fdata()
    np.testing.assert_allclose(z[mask], evaluation.z_maps[REAL][1], atol=1e-4)


# Samples ------------------------------------------------------------------------------------


def test_samples_are_told_apart_by_their_provenance(cohort):
    _, held_out, _, _ = cohort

    def synthetic(number, sample):
        entities = {**held_out[0].entities, "run": number}
        return replace(
            held_out[0], entities=entities, metadata={PROVENANCE_KEY: {"Sample": sample}}
        )

    # Two real runs, three samples each: runs 1 to 3 and 4 to 6.
    runs = [synthetic(str(n), 1 + (n - 1) % 3) for n in range(1, 7)]
    originals = [original_of(run) for run in runs]
    assert [sample for _, sample in originals] == [1, 2, 3, 1, 2, 3]
    assert len({name for name, _ in originals[:3]}) == 1
    assert len({name for name, _ in originals}) == 2
    assert limit_samples(runs, most=2) == [runs[0], runs[1], runs[3], runs[4]]
    alone = [synthetic(str(n), 1) for n in (1, 2)]  # one sample of each of two runs
    assert len({original_of(run)[0] for run in alone}) == 2


def test_maps_are_of_the_first_sample_and_figures_of_all(evaluation):
    runs = evaluation.records["samples"]
    assert {record.run.entities["run"] for record in runs} == {"1"}
    assert any("means over 2 of them" in notice for notice in evaluation.notices)
    assert not any("single draw" in notice for notice in evaluation.notices)


@pytest.fixture(scope="module")
def pooled(cohort):
    """Evaluations of two samples together, and of each by itself."""
    root, held_out, training, generators = cohort
    real, trained = held_out[:12], training[:12]
    samples = [r for r in generators["samples"] if r.participant in TESTED[:2]]
    numbered = {
        number: [r for r in samples if r.entities["run"] == str(number)] for number in (1, 2)
    }
    chosen = {"both": samples, **numbered}
    return {
        name: evaluate(real, trained, {"made": runs}, work_dir=root / "work", progress=False)
        for name, runs in chosen.items()
    }


def test_figures_of_several_samples_are_means_of_those_of_each(pooled):
    both, first, second = (pooled[name].estimates["made"] for name in ("both", 1, 2))
    moved = 0
    for name, estimate in first.items():
        values = [estimate.value, second[name].value]
        assert both[name].value == pytest.approx(np.mean(values), nan_ok=True), name
        low, high = find_metric(name).bounds
        assert not both[name].low < low
        assert not both[name].high > high
        moved += values[0] != values[1]
        assert both[name].floor == pytest.approx(
            np.mean([estimate.floor, second[name].floor]), nan_ok=True
        )
    assert moved > 40
    assert any("single draw" in notice for notice in pooled[1].notices)
    assert set(both) - set(first) == {"diversity_samples_ratio", "sample_correlation"}
    real = pooled["both"].estimates[REAL]
    assert {name: e.value for name, e in real.items()} == pytest.approx(
        {name: e.value for name, e in pooled[1].estimates[REAL].items()}, nan_ok=True, rel=1e-12
    )


def test_only_samples_that_every_run_has_are_pooled(cohort):
    root, held_out, _, generators = cohort
    real, synthetic = (
        [run for run in runs if run.participant == TESTED[0]]
        for runs in (held_out, generators["samples"])
    )
    grid = Grid(held_out[0].affine, held_out[0].shape)
    records, _ = summarise_usable_runs(
        [*real, *synthetic], grid, work_dir=root / "work", progress=False
    )
    of_real, of_synthetic = records[: len(real)], records[len(real) :]
    even = match_runs(of_real, (), {"made": of_synthetic})
    (second,) = even.further_samples()
    assert even.n_samples("made") == 2
    firsts = even.participants["made"][TESTED[0]]
    assert [
        (r.run.task, r.run.entities["dir"], r.run.entities["run"])
        for r in second.participants["made"][TESTED[0]]
    ] == [(r.run.task, r.run.entities["dir"], "2") for r in firsts]
    uneven = match_runs(of_real, (), {"made": of_synthetic[:-1]})
    assert uneven.n_samples("made") == 1
    assert uneven.further_samples() == []


def test_samples_that_differ_as_real_runs_do_pass_and_equal_ones_are_seen(evaluation):
    good, same = evaluation.estimates["samples"], evaluation.estimates["again"]
    assert good["diversity_samples_ratio"].value == pytest.approx(1.0, abs=0.4)
    assert same["diversity_samples_ratio"].value == pytest.approx(0.0, abs=1e-6)
    assert same["sample_correlation"].value == pytest.approx(1.0, abs=1e-3)
    assert good["sample_correlation"].value < 0.5
    verdicts = {
        name: {j.metric.name: j.passed for j in judge(evaluation.estimates[name])}
        for name in ("samples", "again")
    }
    assert verdicts["samples"]["diversity_samples_ratio"] is True
    assert verdicts["again"]["diversity_samples_ratio"] is False


def test_samples_do_not_count_as_runs_or_participants(evaluation):
    records = {run.run.label: run for run in evaluation.records["again"]}
    assert len(records) == len(evaluation.records["again"])
    real = evaluation.records[REAL]
    matched = match_runs(real, (), {"again": evaluation.records["again"]})
    assert matched.samples["again"] == {}
    assert {p: len(r) for p, r in matched.participants["again"].items()} == {
        p: sum(record.run.participant == p for record in real) for p in TESTED
    }


# Copies ----------------------------------------------------------------------------------


def test_held_out_people_in_the_generator_s_place_are_no_copies(evaluation):
    real = evaluation.estimates[REAL]
    assert real["copied_share"].value == 0.0
    assert real["sample_similarity"].value == pytest.approx(0.0, abs=0.1)


def test_a_run_is_never_compared_with_its_own_participant(evaluation):
    from fmrisynth.evaluation.cohort.supervoxels import common_supervoxels

    runs = evaluation.records[REAL]
    keys = common_supervoxels(runs)
    training = [r for source in ("samples",) for r in evaluation.records[source]]
    pairs = compare_real_pairs(runs, training, keys)
    audit = audit_copying(
        runs, runs, training, keys, pairs, np.random.default_rng(0), own_participants=True
    )
    assert (audit.to_held_out < 0.99).all()  # its own run would be 1


# Atlas --------------------------------------------------------------------------------------


def test_time_courses_are_those_of_parcels(evaluation, atlas):
    regions = {course.region for course in evaluation.time_courses}
    assert regions <= {"left half (halves)", "right half (halves)"}
    assert regions
    record = evaluation.records[REAL][0]
    series = record.array("parcel_series")
    assert series.shape == (2, record.run.n_volumes)
    assert record.array("parcels").tolist() == [1, 2]
    assert evaluation.settings["regions of time courses"] == "halves"
    assert np.isfinite(evaluation.estimates["samples"]["course_correlation"].value)


def test_without_an_atlas_the_records_of_one_are_used(cohort, evaluation):
    root = cohort[0]

    record = evaluation.records[REAL][0]
    written = record.path.stat().st_mtime_ns
    grid = Grid(record.run.affine, record.run.shape)
    work_dir = root / "work"
    (again,), _ = summarise_usable_runs([record.run], grid, work_dir=work_dir, progress=False)
    assert again.path == record.path
    assert again.path.stat().st_mtime_ns == written


# Meaning ------------------------------------------------------------------------------------


def test_every_figure_has_a_ceiling_and_a_floor_or_a_reason(evaluation):
    seen = set()
    for name, figure in evaluation.estimates["samples"].items():
        metric = find_metric(name)
        seen.add(metric.name)
        assert np.isfinite(figure.ceiling) != metric.ceiling.startswith("none"), name
        assert np.isfinite(figure.floor) != metric.floor.startswith("none"), name
        if "none: a number" not in metric.ceiling:
            assert figure.low <= figure.value + 1e-9, name
            assert figure.value - 1e-9 <= figure.high, name
    assert seen == {metric.name for metric in all_metrics()}


def test_real_data_as_a_generator_have_every_figure(evaluation):
    real = {name.partition("[")[0] for name in evaluation.estimates[REAL]}
    made = {name.partition("[")[0] for name in evaluation.estimates["samples"]}
    # Real runs have no samples; ratios between participants need four of them.
    few = {"diversity_samples_ratio", "sample_correlation", "diversity_participants_ratio",
           "map_variance_ratio", "copied_share_training", "nearest_own"}  # fmt: skip
    assert made - real <= few


def test_the_table_is_described(evaluation, tmp_path):
    import json

    write_metrics(evaluation, tmp_path / "metrics.tsv")
    sidecar = json.loads((tmp_path / "metrics.json").read_text())
    assert sidecar == json.loads(json.dumps(describe()))
    table = pd.read_csv(tmp_path / "metrics.tsv", sep="\t", na_values="n/a")
    assert set(table.columns) == set(sidecar)


# Variance -----------------------------------------------------------------------------------


def test_shuffled_labels_explain_less_than_true_ones(evaluation):
    share = evaluation.estimates[REAL]["fc_variance_participant"]
    assert share.floor < 0.7 * share.value
