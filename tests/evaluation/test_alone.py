"""The evaluation compares anybody's synthetic runs: BIDS folders that fmrisynth did not write."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from fmrisynth import evaluate, find_runs
from fmrisynth.errors import DataError
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.export import metrics_table, write_metrics

pytestmark = pytest.mark.slow

SHAPE, N_VOLUMES, T_R = (8, 9, 8), 60, 2.0
AFFINE = np.diag([12.0, 12.0, 12.0, 1.0])
AFFINE[:3, 3] = -42.0
BRAIN = np.zeros(SHAPE, dtype=bool)
BRAIN[1:-1, 1:-1, 1:-1] = True
HELD_OUT, TRAINING = ("05", "06", "07"), ("01", "02", "03", "04")
ONSETS = {"left": (8.0, 48.0, 88.0), "right": (28.0, 68.0, 108.0)}


def response(times):
    """A response that peaks 5 s after a block of 8 s begins to act."""
    course = np.convolve(
        (times >= 0) & (times < 8), np.exp(-((np.arange(0, 20, T_R) - 5) ** 2) / 6)
    )
    return course[: len(times)]


def write_dataset(root, participants, seed, amplitude=2.0):
    """Write a BIDS dataset of one task in two directions with nibabel, numpy and pandas alone."""
    root.mkdir()
    description = {"Name": root.name, "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    rng = np.random.default_rng(seed)
    times = T_R * np.arange(N_VOLUMES)
    maps = {"left": np.zeros(SHAPE), "right": np.zeros(SHAPE)}
    maps["left"][2:4, 2:5, 2:5], maps["right"][5:7, 4:7, 3:6] = 1.0, 1.0
    rows = [(t, 8.0, name) for name, onsets in ONSETS.items() for t in onsets]
    events = pd.DataFrame(rows, columns=["onset", "duration", "trial_type"]).sort_values("onset")
    for participant in participants:
        anatomy = 900.0 + 100.0 * np.random.default_rng(int(participant)).random(SHAPE)
        for direction in ("AP", "PA"):
            change = rng.normal(size=(*SHAPE, N_VOLUMES))
            for name, onsets in ONSETS.items():
                course = sum(response(times - onset) for onset in onsets)
                change += amplitude * maps[name][..., None] * course
            data = (anatomy[..., None] * (1 + change / 100) * BRAIN[..., None]).astype(np.float32)
            image = nib.Nifti1Image(data, AFFINE)
            image.header.set_zooms((12.0, 12.0, 12.0, T_R))
            image.header.set_xyzt_units("mm", "sec")
            stem = f"sub-{participant}_task-tap_dir-{direction}"
            folder = root / f"sub-{participant}" / "func"
            folder.mkdir(parents=True, exist_ok=True)
            nib.save(image, folder / f"{stem}_bold.nii.gz")
            sidecar = {"RepetitionTime": T_R, "TaskName": "tap"}
            (folder / f"{stem}_bold.json").write_text(json.dumps(sidecar))
            events.to_csv(folder / f"{stem}_events.tsv", sep="\t", index=False)
    return find_runs(root).runs


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("anybody")
    real = write_dataset(root / "real", (*TRAINING, *HELD_OUT), seed=0)
    good = write_dataset(root / "good", HELD_OUT, seed=1)
    noise = write_dataset(root / "noise", HELD_OUT, seed=2, amplitude=0.0)
    return root, real, good, noise


@pytest.fixture(scope="module")
def evaluation(folders):
    root, real, good, noise = folders
    held_out = [run for run in real if run.participant in HELD_OUT]
    training = [run for run in real if run.participant in TRAINING]
    generators = {"good": good, "noise": noise}
    return evaluate(held_out, training, generators, work_dir=root / "work", progress=False)


def test_a_good_generator_is_told_from_one_without_responses(evaluation):
    good, noise = evaluation.estimates["good"], evaluation.estimates["noise"]
    assert good["corr"].value > 0.9 * good["corr"].ceiling > 0.5
    assert abs(noise["corr"].value) < 0.3
    assert good["slope"].value == pytest.approx(1.0, abs=0.15)
    assert noise["slope"].value == pytest.approx(0.0, abs=0.15)
    assert good["temporal_sd_ratio"].value == pytest.approx(1.0, abs=0.05)
    assert evaluation.held_out == HELD_OUT
    assert set(evaluation.training) == set(TRAINING)
    assert not evaluation.skipped


def test_its_table_has_the_generators_and_real_data(evaluation, tmp_path):
    write_metrics(evaluation, tmp_path / "metrics.tsv")
    table = pd.read_csv(tmp_path / "metrics.tsv", sep="\t")
    assert list(dict.fromkeys(table["generator"])) == ["good", "noise", REAL]


def test_the_participants_without_synthetic_runs_are_left_out(folders, tmp_path):
    _, real, good, _ = folders
    some = [run for run in good if run.participant != HELD_OUT[0]]
    held_out = [run for run in real if run.participant in HELD_OUT]
    training = [run for run in real if run.participant in TRAINING]
    result = evaluate(held_out, training, {"some": some}, work_dir=tmp_path, progress=False)
    assert {r.run.participant for r in result.records["some"]} == set(HELD_OUT[1:])
    assert result.estimates["some"]["corr"].value > 0.5


def test_runs_in_another_space_are_refused_with_a_message(folders, tmp_path):
    _, real, good, _ = folders
    moved = []
    for run in good:
        image = nib.load(run.bold)
        affine = AFFINE.copy()
        affine[:3, 3] += 500.0
        path = tmp_path / run.bold.name
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
        moved.append(replace(run, bold=path, affine=affine))
    held_out = [run for run in real if run.participant in HELD_OUT]
    with pytest.raises(DataError, match=r"'moved'.*does not overlap.*one space"):
        evaluate(held_out, [], {"moved": moved}, work_dir=tmp_path, progress=False)


def test_missing_voxels_of_a_generator_count_as_no_effect_and_move_no_other_number(
    folders, evaluation, tmp_path
):
    root, real, good, _ = folders
    cut = []
    for run in good:
        mask = BRAIN.copy()
        mask[:5] = False  # where the condition "left" is
        path = tmp_path / run.bold.name.replace("bold", "mask")
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), path)
        cut.append(replace(run, mask=path))
    held_out = [run for run in real if run.participant in HELD_OUT]
    training = [run for run in real if run.participant in TRAINING]
    generators = {"cut": cut, "good": good}
    result = evaluate(held_out, training, generators, work_dir=root / "work", progress=False)
    assert any("runs of cut lack up to" in notice for notice in result.notices)
    assert result.estimates["cut"]["slope[left]"].value == pytest.approx(0.0, abs=0.1)
    assert result.estimates["cut"]["slope[right]"].value > 0.8
    before, after = (
        table[table["generator"] == "good"].set_index("metric").sort_index()
        for table in (metrics_table(evaluation), metrics_table(result))
    )
    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_torch_is_not_needed():
    code = (
        "import sys; from fmrisynth import evaluate, find_runs; import fmrisynth.evaluation.export;"
        "import fmrisynth.reports.html; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
