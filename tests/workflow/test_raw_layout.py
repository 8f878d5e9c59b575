"""`--output-layout raw` writes a tree that fMRIPrep accepts as its input."""

import gzip
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.bids_tree import SPACE, write_nifti
from support.tiny_model import make_model
from support.validator import validator_issues

from fmrisynth.bids.derivatives import find_synthetic_runs, planned_files

pytestmark = pytest.mark.slow

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


@pytest.fixture
def made(call, tiny_bids_copy, tmp_path):
    """Write runs in the raw layout; sub-01 and sub-02 have T1w images, sub-03 has none."""
    make_model().save(tmp_path / "model")
    prep = tiny_bids_copy / "derivatives" / "fmriprep"
    image = np.arange(8**3, dtype="f4").reshape(8, 8, 8)
    for label, stem, extension in (
        ("01", f"space-{SPACE}_res-2_desc-preproc_T1w", ".nii.gz"),
        ("02", f"space-{SPACE}_desc-preproc_T1w", ".nii"),
        ("02", "desc-preproc_T1w", ".nii.gz"),  # of another space
        ("03", f"space-{SPACE}_label-GM_probseg", ".nii.gz"),
        ("03", "space-MNI305_desc-preproc_T1w", ".nii.gz"),
    ):
        write_nifti(prep / f"sub-{label}/anat/sub-{label}_{stem}{extension}", image, AFFINE)

    def run(*words):
        return call(
            tiny_bids_copy, tmp_path / "out", "participant", "--output-layout", "raw",
            "--model", tmp_path / "model", "--sampling-steps", 1, "--device", "cpu",
            "--precision", "32-true", *words,
        )  # fmt: skip

    run.bids = tiny_bids_copy
    return run


def test_what_is_written(made, tmp_path):
    code, _, err = made("-t", "motor", "--n-samples", 2, "-v")
    assert code == 0, err
    out = tmp_path / "out"
    names = {p.relative_to(out).as_posix() for p in out.glob("sub-*/**/*") if p.is_file()}
    stems = [
        f"sub-{p}/func/sub-{p}_task-motor_rec-synth_run-{r}_"
        for p in ("01", "02", "03")
        for r in (1, 2)
    ]
    endings = ("bold.nii.gz", "bold.json", "events.tsv", "events.json")
    endings += ("sbref.nii.gz", "sbref.json")
    expected = {stem + ending for stem in stems for ending in endings}
    anatomy = {f"sub-{p}/anat/sub-{p}_T1w{e}" for p in ("01", "02") for e in (".nii.gz", ".json")}
    assert names == expected | anatomy
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "raw"
    sidecar = json.loads((out / f"{stems[0]}bold.json").read_text())
    assert sidecar["TaskName"] == "motor"
    assert sidecar["RepetitionTime"] == 2.0
    assert "not measured" in sidecar["Description"]
    assert sidecar["FmrisynthProvenance"]["ParticipantRole"] == "training"
    assert "SkullStripped" not in sidecar
    source = pd.read_csv(made.bids / "sub-01/func/sub-01_task-motor_events.tsv", sep="\t")
    pd.testing.assert_frame_equal(pd.read_csv(out / f"{stems[0]}events.tsv", sep="\t"), source)
    assert np.isfinite(nib.load(out / f"{stems[0]}bold.nii.gz").get_fdata()).all()


@pytest.mark.validator
def test_the_validator_finds_no_error(made, tmp_path):
    code, _, err = made()
    assert code == 0, err
    assert [i for i in validator_issues(tmp_path / "out") if i["severity"] == "error"] == []


def test_anatomy_is_the_real_one_in_the_space_of_the_runs(made, tmp_path):
    code, _, err = made()
    assert code == 0
    assert "no T1w image" in err
    assert "for 03;" in err
    for label in ("01", "02"):  # the one of sub-02 was not compressed
        path = tmp_path / "out" / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz"
        with gzip.open(path):
            np.testing.assert_array_equal(
                nib.load(path).get_fdata(), np.arange(8**3).reshape(8, 8, 8)
            )
        said = json.loads(path.with_name(f"sub-{label}_T1w.json").read_text())
        assert "not synthetic" in said["Description"]
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "face included" in readme
    assert "No functional image in this dataset was measured" in readme


def test_finished_runs_are_kept_and_found(made, tmp_path):
    assert made()[0] == 0
    out = tmp_path / "out"
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*_bold.nii.gz")}
    lost = next(out.rglob("sub-02_task-wm*_bold.nii.gz"))
    content = lost.read_bytes()
    lost.unlink()
    code, _, err = made()
    assert code == 0
    assert "5 synthetic runs are there already" in err
    assert lost.read_bytes() == content
    assert all(p.stat().st_mtime_ns == time for p, time in times.items() if p != lost)
    runs = find_synthetic_runs(out)
    assert [run.label for run in runs] == [
        f"sub-{p}_task-{t}" for p in ("01", "02", "03") for t in ("motor", "wm")
    ]
    assert {run.mask for run in runs} == {None}
    files = {p for run in runs for p in planned_files(out, run, "raw")}
    assert [path for path in files if not path.is_file()] == []


def test_a_reconstruction_keeps_its_name(made, tmp_path):
    for path in sorted(made.bids.rglob("*_task-motor_*")):
        if path.is_file():
            path.rename(path.with_name(path.name.replace("task-motor_", "task-motor_rec-topup_")))
    assert made("-t", "motor")[0] == 0
    out = tmp_path / "out"
    assert len(list(out.rglob("*_task-motor_rec-synthtopup_bold.nii.gz"))) == 3
    assert {run.entities["rec"] for run in find_synthetic_runs(out)} == {"topup"}


def test_layouts_do_not_mix(made, call, tmp_path):
    assert made("--participant-label", "01")[0] == 0
    out = tmp_path / "out"
    before = sorted(out.glob("sub-*/**/*"))
    code, _, err = made("--output-layout", "derivatives")
    assert code == 73
    assert "layout raw" in err
    assert sorted(out.glob("sub-*/**/*")) == before


def test_the_group_level_reads_it(made, call, tmp_path):
    assert made()[0] == 0
    code, _, err = call(
        made.bids, tmp_path / "out", "group", "--model", tmp_path / "model", "--baselines", "none"
    )
    assert code == 0, err
    table = pd.read_csv(tmp_path / "out" / "group" / "metrics.tsv", sep="\t")
    value = table.set_index(["metric", "generator"]).loc[("corr", "fmrisynth"), "value"]
    assert np.isfinite(value)


def test_raw_runs_bring_their_raw_t1w(call, bids_factory, tmp_path):
    root = bids_factory(
        participants=("01", "02"), derivatives=None, sessions=("a",), tasks=("motor",)
    )
    make_model().save(tmp_path / "model")
    image = np.ones((4, 4, 4), "f4")
    write_nifti(root / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", image, AFFINE)
    # of another session, as in studies that take it once
    write_nifti(root / "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz", image, AFFINE)
    code, _, err = call(
        root, tmp_path / "out", "participant", "--output-layout", "raw", "--model",
        tmp_path / "model", "--sampling-steps", 1, "--device", "cpu", "--precision", "32-true",
    )  # fmt: skip
    assert code == 0, err
    found = {
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*T1w.nii*")
    }
    assert found == {f"sub-{p}/ses-a/anat/sub-{p}_ses-a_T1w.nii.gz" for p in ("01", "02")}
