"""Implants, response maps, parcels' series and noise by choice, from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.bids_tree import SPACE, make_bids
from support.tiny_model import TASKS, VOCABULARY, make_model
from support.validator import validator_issues

from fmrisynth.evaluation.runs.atlas import Atlas

pytestmark = pytest.mark.slow

EFFECT = {"trial_type": "hand", "sphere": {"center": [0, 0, 2], "radius": 7}, "size": 3.0}


@pytest.fixture
def participant(call, tmp_path: Path):
    """Run the participant level on two participants with motor and rest."""
    bids = make_bids(tmp_path / "bids", participants=("01", "02"), n_volumes=40)
    for path in sorted(bids.rglob("*task-wm*")):
        path.rename(path.with_name(path.name.replace("task-wm", "task-rest")))
    for events in bids.rglob("*task-rest*_events.tsv"):
        events.unlink()
    vocabulary = replace(VOCABULARY, tasks=(*TASKS, "rest"))
    make_model(vocabulary=vocabulary).save(tmp_path / "model")

    def run(out: str, *words: object) -> tuple[int, str]:
        code, _, text = call(
            bids, tmp_path / out, "participant", "--model", tmp_path / "model",
            "--sampling-steps", 1, "--device", "cpu", "--precision", "32-true", *words,
        )  # fmt: skip
        return code, text

    return run


def implant(folder: Path, *effects: dict) -> Path:
    path = folder / "implant.json"
    path.write_text(json.dumps({"effects": effects}))
    return path


def bold(out: Path, label: str = "01", task: str = "motor") -> np.ndarray:
    path = next(out.glob(f"sub-{label}/func/*task-{task}*_desc-synth_bold.nii.gz"))
    return nib.load(path).get_fdata()


def test_an_implant_is_all_that_changes(participant, tmp_path: Path) -> None:
    assert participant("plain", "-t", "motor")[0] == 0
    code, text = participant("with", "-t", "motor", "--implant", implant(tmp_path, EFFECT))
    assert code == 0, text
    truth_path = next((tmp_path / "with").glob("sub-01/func/*_statmap.nii.gz"))
    stem = f"sub-01_task-motor_space-{SPACE}_res-2_contrast-hand_stat-effect_desc-truth"
    assert truth_path.name == f"{stem}_statmap.nii.gz"
    truth = nib.load(truth_path).get_fdata()
    assert set(np.unique(truth)) == {0.0, 3.0}
    plain, added = bold(tmp_path / "plain"), bold(tmp_path / "with")
    change = np.abs(added - plain).max(axis=-1)
    assert (change[truth > 0] > 10).all()  # 3 % of about 1000
    assert change[truth == 0].max() < 0.5  # rounding
    sidecar = next((tmp_path / "with").glob("sub-01/func/*_desc-synth_bold.json"))
    assert json.loads(sidecar.read_text())["FmrisynthProvenance"]["Implant"]
    _, text = participant("with", "-t", "motor", "--implant", implant(tmp_path, EFFECT))
    assert "2 synthetic runs are there already" in text
    _, text = participant(
        "with", "-t", "motor", "--implant", implant(tmp_path, EFFECT | {"size": 1})
    )
    assert "are there already" not in text


@pytest.mark.validator
def test_rest_gets_a_design_that_nobody_ran(participant, tmp_path: Path) -> None:
    design = tmp_path / "design.tsv"
    design.write_text("onset\tduration\ttrial_type\n10\t10\timagery\n50\t10\timagery\n")
    effect = EFFECT | {"trial_type": "imagery", "spread": 0.5}
    words = ("-t", "rest", "--events", design)
    code, text = participant("out", *words)
    assert code == 65
    assert "'imagery' of task rest" in text
    code, text = participant("out", *words, "--implant", implant(tmp_path, effect))
    assert code == 0, text
    out = tmp_path / "out"
    assert len(list(out.rglob("*_desc-synth_bold.nii.gz"))) == 2
    assert next(out.rglob("*_events.tsv")).read_text() == design.read_text()
    truths = [nib.load(path).get_fdata().max() for path in out.rglob("*_statmap.nii.gz")]
    assert len(set(truths)) == 2  # participants differ
    assert [i for i in validator_issues(out) if i["severity"] == "error"] == []


def test_an_effect_that_no_run_has_is_refused(participant, tmp_path: Path) -> None:
    code, text = participant("out", "--implant", implant(tmp_path, EFFECT | {"trial_type": "x"}))
    assert code == 64
    assert "no run has events of the trial type 'x'" in text
    assert not list((tmp_path / "out").rglob("*_bold.nii.gz"))


def test_maps_are_the_responses_that_runs_were_given(participant, tmp_path: Path) -> None:
    code, text = participant("one", "-t", "motor", "--also", "maps")
    assert code == 0, text
    assert participant("two", "-t", "motor", "--guidance", 3)[0] == 0
    maps = {
        path.name.split("contrast-")[1].split("_")[0]: nib.load(path).get_fdata()
        for path in (tmp_path / "one").glob("sub-01/func/*_statmap.nii.gz")
    }
    assert set(maps) == {"hand", "foot"}
    # what guidance adds to the runs lies where the maps are
    change = (bold(tmp_path / "two") - bold(tmp_path / "one")).std(axis=-1)
    strength = np.abs(maps["hand"]) + np.abs(maps["foot"])
    inside = change > 0
    assert np.corrcoef(change[inside], strength[inside])[0, 1] > 0.7


def test_series_of_parcels(participant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = participant("none", "-t", "motor", "--also", "timeseries")
    if code == 64:
        assert "TEMPLATEFLOW_HOME" in text
    labels = np.zeros((8, 9, 8), "i2")
    labels[2:4, 3:6, 3:6], labels[5:7, 3:6, 3:6] = 1, 2
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-14, -18, -12)
    atlas = Atlas("Two parcels, A", nib.Nifti1Image(labels, affine), {1: "left", 2: "right"})
    monkeypatch.setattr("fmrisynth.workflow.participant.load_atlas", lambda _: atlas)
    code, text = participant("out", "-t", "motor", "--also", "timeseries", "maps")
    assert code == 0, text
    path = next((tmp_path / "out").glob("sub-01/func/*_timeseries.tsv*"))
    path = next((tmp_path / "out").glob("sub-01/func/*_atlas-TwoparcelsA_timeseries.tsv"))
    table = pd.read_csv(path, sep="\t")
    assert list(table.columns) == ["left", "right"]
    data = bold(tmp_path / "out")[labels == 2]
    data = data[data.mean(axis=1) > 0]
    expected = (100 * (data / data.mean(axis=1, keepdims=True) - 1)).mean(axis=0)
    np.testing.assert_allclose(table["right"], expected, atol=0.02)


def test_noise_by_choice(participant, tmp_path: Path) -> None:
    for name, words in {
        "all": (),
        "same": ("networks", "drift", "decoder", "physiology"),
        "no drift": ("networks", "decoder", "physiology"),
        "no networks": ("drift", "decoder", "physiology"),
        "none": ("none",),
    }.items():
        code, text = participant(name, "-t", "rest", *(("--noise", *words) if words else ()))
        assert code == 0, text
    data = {
        name: bold(tmp_path / name, task="rest")
        for name in ("all", "same", "no drift", "no networks", "none")
    }
    np.testing.assert_array_equal(data["all"], data["same"])
    assert not np.array_equal(data["all"], data["no drift"])
    inside = data["all"].std(axis=-1) > 0
    sd = {name: float(np.median(x[inside].std(axis=-1))) for name, x in data.items()}
    assert sd["none"] < sd["all"]
    assert sd["no networks"] == pytest.approx(sd["all"], rel=0.25)
    code, text = participant("x", "--noise", "thunder")
    assert code == 64
    assert "'thunder' is no source of noise" in text
