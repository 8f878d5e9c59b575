"""A metric is one file: what reads the registry finds a new one without knowing its name."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from support import new_metric
from support.evaluation_cohort import HELD_OUT, TRAINING, Recipe, write_cohort

from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.export import metrics_table, write_metrics
from fmrisynth.evaluation.metrics import registry
from fmrisynth.evaluation.metrics.registry import all_metrics, describe, find_metric, split_name
from fmrisynth.evaluation.metrics.verdict import judge
from fmrisynth.reports.html import render_group_report


def test_names_are_unique_and_every_rule_has_a_use():
    names = [metric.name for metric in all_metrics()]
    assert len(set(names)) == len(names)
    assert len({family.name for family in registry.FAMILIES}) == len(registry.FAMILIES)
    assert all(metric.use is not None for metric in all_metrics() if metric.rule is not None)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("corr", ("corr", "", "")),
        ("corr_contrast[left > right]", ("corr", "_contrast", "left > right")),
        ("rsa_pairs_trial_type", ("rsa_pairs", "_trial_type", "")),
        ("slope[a_contrast[b]]", ("slope", "", "a_contrast[b]")),
        ("decoding_gain[2]", ("decoding_gain", "", "2")),
    ],
)
def test_the_name_of_a_row_says_metric_level_and_part(row, parts):
    assert split_name(row) == parts
    assert find_metric(row).name == parts[0]


def test_a_row_of_no_metric_is_an_error():
    with pytest.raises(KeyError):
        find_metric("beauty")


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """The same comparison without and with a metric that a single file adds."""
    root = tmp_path_factory.mktemp("registry")
    held_out = write_cohort(root / "real", HELD_OUT[:2])
    training = write_cohort(root / "real", TRAINING[:2])
    generators = {"one": write_cohort(root / "one", HELD_OUT[:2], Recipe(noise_seed=1, noise=2.0))}
    options = {"work_dir": root / "work", "progress": False}
    before = evaluate(held_out, training, generators, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "FAMILIES", (*registry.FAMILIES, new_metric.FAMILY))
        yield before, evaluate(held_out, training, generators, **options)


@pytest.mark.slow
def test_a_metric_added_in_one_file_is_judged_tabulated_described_and_shown(evaluations, tmp_path):
    _, evaluation = evaluations
    (judgement,) = [
        j
        for j in judge(evaluation.estimates["one"], evaluation.estimates[REAL])
        if j.metric.name == "range_ratio"
    ]
    assert judgement.passed is False  # twice the noise
    assert judgement.estimate.value > 1.3

    write_metrics(evaluation, tmp_path / "metrics.tsv")
    table = pd.read_csv(tmp_path / "metrics.tsv", sep="\t").set_index(["metric", "generator"])
    assert table.loc[("range_ratio", "one"), "value"] == pytest.approx(judgement.estimate.value,
                                                                       rel=1e-4)  # fmt: skip
    assert abs(table.loc[("range_ratio", REAL), "value"] - 1) < 0.2
    sidecar = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert "largest less smallest" in sidecar["metric"]["Levels"]["range_ratio"]
    assert sidecar == json.loads(json.dumps(describe()))

    page = render_group_report(evaluation, {})
    verdict, section = page.index('id="verdict"'), page.index('<section id="range"')
    assert verdict < page.index("Range of the signal, synthetic / real") < section
    assert "Range of the signal, synthetic / real" in page[section:]


@pytest.mark.slow
def test_a_new_metric_changes_no_other_number(evaluations):
    before, after = (metrics_table(evaluation) for evaluation in evaluations)
    after = after[after["metric"] != "range_ratio"].reset_index(drop=True)
    pd.testing.assert_frame_equal(before, after, check_exact=True)
