"""`--output-layout fmriprep` writes what pipelines after fMRIPrep look for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.glm.first_level import first_level_from_bids
from nilearn.interfaces.fmriprep import load_confounds_strategy
from support.bids_tree import SPACE, make_bids
from support.tiny_model import VOCABULARY, make_model
from support.validator import validator_issues

from fmrisynth.bids.dataset_files import layout_of
from fmrisynth.bids.derivatives import find_synthetic_runs, planned_files
from fmrisynth.bids.search import find_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def written(call, tmp_path: Path) -> Path:
    """Runs of two participants and two tasks, one of them rest, in fMRIPrep's layout."""
    bids = make_bids(tmp_path / "bids", participants=("01", "02"), n_volumes=40)
    for path in sorted(bids.rglob("*task-wm*")):
        path.rename(path.with_name(path.name.replace("task-wm", "task-rest")))
    for events in bids.rglob("*task-rest*_events.tsv"):
        events.unlink()
    vocabulary = replace(VOCABULARY, tasks=(*VOCABULARY.tasks, "rest"))
    make_model(vocabulary=vocabulary).save(tmp_path / "model")
    code, _, text = call(
        bids, tmp_path / "out", "participant", "--output-layout", "fmriprep",
        "--model", tmp_path / "model", "--sampling-steps", 1, "--device", "cpu",
        "--precision", "32-true",
    )  # fmt: skip
    assert code == 0, text
    return tmp_path / "out"


def test_names_are_fmripreps(written: Path) -> None:
    names = {path.name for path in (written / "sub-01" / "func").iterdir()}
    spatial = f"space-{SPACE}_res-2"
    assert names == {
        *(
            f"sub-01_task-{task}_{stem}.{extension}"
            for task in ("motor", "rest")
            for stem, extensions in (
                (f"{spatial}_desc-preproc_bold", ("nii.gz", "json")),
                (f"{spatial}_desc-brain_mask", ("nii.gz", "json")),
                (f"{spatial}_boldref", ("nii.gz", "json")),
                ("desc-confounds_timeseries", ("tsv", "json")),
            )
            for extension in extensions
        ),
        "sub-01_task-motor_events.tsv",
        "sub-01_task-motor_events.json",
    }
    runs = find_synthetic_runs(written)
    assert [(r.label, r.events is None) for r in runs][:2] == [
        ("sub-01_task-motor", False),
        ("sub-01_task-rest", True),
    ]
    files = {path for run in runs for path in planned_files(written, run, "fmriprep")}
    assert [path for path in files if not path.is_file()] == []


def test_everything_says_that_it_is_synthetic(written: Path) -> None:
    assert layout_of(written) == "fmriprep"
    description = json.loads((written / "dataset_description.json").read_text())
    assert "Synthetic" in description["Name"]
    assert [entry["Name"] for entry in description["GeneratedBy"]] == ["fmrisynth"]
    for path in written.rglob("sub-*.nii.gz"):
        assert b"synthetic" in nib.load(path).header["descrip"].item()
    for path in written.rglob("*_bold.json"):
        assert "not measured" in json.loads(path.read_text())["Description"]


def test_the_reference_is_the_mean(written: Path) -> None:
    for path in written.rglob("*_boldref.nii.gz"):
        bold = nib.load(path.with_name(path.name.replace("boldref", "desc-preproc_bold")))
        reference = nib.load(path)
        np.testing.assert_allclose(
            reference.get_fdata(), bold.get_fdata().mean(axis=3), rtol=1e-3, atol=1e-2
        )
        np.testing.assert_array_equal(reference.affine, bold.affine)


def test_nilearn_reads_it_by_its_defaults(written: Path) -> None:
    models, images, events, confounds = first_level_from_bids(
        written, "motor", derivatives_folder=".", slice_time_ref=0.0
    )
    assert len(models) == 2
    assert Path(images[0][0]).name.endswith(f"_space-{SPACE}_res-2_desc-preproc_bold.nii.gz")
    assert set(events[0][0]["trial_type"]) == {"hand", "foot"}
    assert "trans_x" in confounds[0][0]
    table, _ = load_confounds_strategy(images[0][0], denoise_strategy="simple")
    assert np.isfinite(table.to_numpy()).all()


def test_the_source_is_not_taken_from_it(written: Path) -> None:
    """An output in fMRIPrep's names is no derivative to learn from."""
    source = written.parent / "bids"
    target = source / "derivatives" / "synthetic"
    written.rename(target)
    assert find_runs(source).derivatives.keys() == {"fmriprep"}


@pytest.mark.validator
def test_the_validator_finds_no_error(written: Path) -> None:
    assert [i for i in validator_issues(written) if i["severity"] == "error"] == []
