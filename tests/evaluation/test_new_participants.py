"""New participants stand beside no real one, and are judged as a group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.evaluation_cohort import HELD_OUT, TRAINING, Recipe, save_run, write_cohort

from fmrisynth.bids.synthetic_sidecars import CARRIER_KEY, PROVENANCE_KEY
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.metrics.verdict import judge
from fmrisynth.evaluation.storage import load_evaluation, save_evaluation

pytestmark = pytest.mark.slow

NEW = tuple(str(i) for i in range(21, 27))  # more than are held out
FRESH = Recipe(noise_seed=1)


def as_new(runs):
    """The same runs as those of new participants."""
    return [
        replace(run, entities={**run.entities, "sub": f"synth{run.participant}"}, new=True)
        for run in runs
    ]


def with_carrier(runs, carrier):
    return [replace(run, metadata={PROVENANCE_KEY: {CARRIER_KEY: carrier}}) for run in runs]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    root = tmp_path_factory.mktemp("new")
    held_out = write_cohort(root / "real", HELD_OUT)
    training = write_cohort(root / "real", TRAINING)
    again = write_cohort(root / "again", HELD_OUT, FRESH)
    generators = {
        "new": as_new(write_cohort(root / "new", NEW, FRESH)),
        "alike": as_new(write_cohort(root / "alike", NEW, replace(FRESH, individual=0.0))),
        "loud": as_new(write_cohort(root / "loud", NEW, replace(FRESH, noise=1.5))),
        "few": as_new(write_cohort(root / "few", NEW[:2], FRESH)),
        # other runs of people whom the model was trained on, under other names
        "leaked": as_new(write_cohort(root / "leaked", TRAINING, FRESH)),
        "own": with_carrier(again, "own"),
        "drawn": with_carrier(again, "drawn"),
    }
    found = evaluate(held_out, training, generators, work_dir=root / "work", progress=False)
    return found, root


@pytest.fixture(scope="module")
def estimates(evaluation):
    return evaluation[0].estimates


def failed(estimates, name):
    return {j.metric.name for j in judge(estimates[name], estimates[REAL]) if j.passed is False}


def test_people_of_the_same_kind_pass_every_rule(estimates):
    judgements = judge(estimates["new"], estimates[REAL])
    assert sum(j.passed is True for j in judgements) >= 14
    # as many other people have a course as like as theirs, but for chance
    assert [j.metric.name for j in judgements if j.passed is False and j.margin < -0.02] == []


def test_nobody_is_asked_to_be_like_a_certain_participant(estimates):
    assert not {"individual_identification", "individual_correlation"} & set(estimates["new"])


@pytest.mark.parametrize(
    ("name", "metric", "value", "tolerance"),
    [
        ("new", "diversity_participants_ratio", 1.0, 0.4),
        ("alike", "diversity_participants_ratio", 0.0, 0.25),
        ("new", "temporal_sd_ratio", 1.0, 0.1),
        ("loud", "temporal_sd_ratio", 1.5, 0.2),
        ("new", "diversity_runs_ratio", 1.0, 0.4),
    ],
)
def test_faults_are_measured_without_pairs(estimates, name, metric, value, tolerance):
    estimate = estimates[name][metric]
    assert estimate.value == pytest.approx(value, abs=tolerance)
    assert estimate.low < estimate.value < estimate.high


def test_group_maps_and_networks_agree_as_those_of_other_people_do(estimates):
    for metric in ("corr", "slope", "fc_correlation"):
        estimate = estimates["new"][metric]
        assert estimate.value == pytest.approx(estimate.ceiling, abs=0.2)


def test_two_participants_are_compared_with_four(estimates):
    few = estimates["few"]
    assert np.isfinite([few["corr"].value, few["told_apart"].value, few["carrier_auc"].value]).all()


# Mean images


def test_mean_images_of_other_people_are_nobodys(estimates):
    new = estimates["new"]
    assert new["carrier_auc"].value < 0.75
    assert new["carrier_identification"].value == 0
    assert new["carrier_distance"].value == pytest.approx(1, abs=0.15)
    assert "carrier_auc" not in failed(estimates, "new")


def test_people_who_were_learned_from_are_recognised(estimates):
    leaked = estimates["leaked"]
    assert leaked["carrier_auc"].value == leaked["carrier_identification"].value == 1
    floor = leaked["carrier_distance"].floor
    assert floor < 0.6
    assert leaked["carrier_distance"].value == pytest.approx(floor, rel=0.2)
    assert "carrier_auc" in failed(estimates, "leaked")


def test_the_control_is_chance_and_sees_copies(estimates):
    for name in ("new", "leaked", REAL):
        estimate = estimates[name]["carrier_auc"]
        assert estimate.floor == 1
        assert 0.2 < estimate.ceiling < 0.8
        assert estimates[name]["carrier_identification"].ceiling == 0
    assert estimates[REAL]["carrier_auc"].value == estimates["new"]["carrier_auc"].ceiling


def test_own_images_are_recognised_by_purpose_and_not_judged(estimates):
    assert estimates["own"]["carrier_identification"].value == 1
    (judgement,) = (j for j in judge(estimates["own"]) if j.metric.name == "carrier_auc")
    assert judgement.passed is None
    assert "people are recognisable" in judgement.reason
    # the same images, said to be drawn, are judged
    assert estimates["drawn"]["carrier_identification"].value == 1
    assert not estimates["drawn"]["carrier_auc"].by_construction


def test_the_comparison_is_kept(evaluation, tmp_path):
    found, _ = evaluation
    save_evaluation(found, tmp_path / "evaluation")
    again = load_evaluation(tmp_path / "evaluation").estimates["new"]
    assert again["carrier_auc"] == found.estimates["new"]["carrier_auc"]


def test_a_run_of_another_grid_has_the_same_image(evaluation):
    """Mean images do not depend on intensities: a scanner's units mean nothing."""
    found, root = evaluation
    runs = [record.run for record in found.records["new"]]
    louder = []
    for run in runs[:12]:
        import nibabel as nib

        data = 7 * nib.load(run.bold).get_fdata(dtype=np.float32)
        mask = np.asarray(nib.load(run.mask).dataobj) > 0
        saved = save_run(root / "units", run.participant, run.task, run.entities["dir"], data, mask)
        louder.append(replace(saved, new=True))
    held_out = [record.run for record in found.records[REAL]]
    training = [record.run for record in found.records["real training"]]
    pair = {"plain": runs[:12], "units": louder}
    again = evaluate(held_out, training, pair, work_dir=root / "work", progress=False).estimates
    first, second = (again[name]["carrier_distance"].value for name in ("plain", "units"))
    assert first == pytest.approx(second, rel=1e-4)
