"""Datasets as other programs and years left them: each is used, or the error says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest
from support.bids_tree import SPACE, make_bids
from support.tiny_model import make_model
from support.validator import validator_issues

pytestmark = pytest.mark.slow

Call = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("strange") / "bids"
    return make_bids(root, participants=("01", "02", "03"), tasks=("motor",))


@pytest.fixture
def bids(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "bids"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def participant(
    call: Callable[..., tuple[int, str, str]], bids: Path, out: Path, tmp_path: Path
) -> Call:
    """Run the participant level with a ready model; returns exit code and messages."""

    def run(*words: object, space: str | None = None) -> tuple[int, str]:
        model = tmp_path / "model"
        if not model.exists():
            make_model(space=space).save(model)
        options = ["--model", model, "--sampling-steps", 1, "--device", "cpu"]
        code, _, text = call(bids, out, "participant", *options, "--precision", "32-true", *words)
        return code, text

    return run


def written(out: Path, pattern: str = "*_desc-synth_bold.nii.gz") -> list[str]:
    return sorted(path.name for path in out.rglob(pattern))


def rename(root: Path, old: str, new: str, pattern: str = "*") -> None:
    for path in sorted(root.rglob(pattern)):
        if path.is_file() and old in path.name:
            path.rename(path.with_name(path.name.replace(old, new)))


def test_run_01_in_the_raw_dataset_is_run_1_in_the_derivatives(
    bids: Path, out: Path, participant: Call
) -> None:
    rename(bids / "derivatives", "task-motor_", "task-motor_run-1_")
    for participant_folder in bids.glob("sub-*"):
        rename(participant_folder, "task-motor_", "task-motor_run-01_")
    code, text = participant()
    assert code == 0, text
    assert len(written(out)) == 3
    assert written(out, "*_events.tsv")[0] == "sub-01_task-motor_run-1_events.tsv"


def test_a_cohort_is_chosen_and_its_entity_is_kept(
    bids: Path, out: Path, participant: Call
) -> None:
    for label, cohort in (("01", "2"), ("02", "2"), ("03", "5")):
        rename(
            bids / "derivatives",
            f"space-{SPACE}_",
            f"space-MNIPediatricAsym_cohort-{cohort}_",
            f"sub-{label}*",
        )
    code, text = participant()
    assert code == 64
    assert "several cohorts of one template" in text
    code, text = participant("--space", "MNIPediatricAsym:cohort-2")
    assert code == 0, text
    assert written(out) == [
        f"sub-{label}_task-motor_space-MNIPediatricAsym_cohort-2_res-2_desc-synth_bold.nii.gz"
        for label in ("01", "02")
    ]
    sidecar = json.loads(next(out.rglob("sub-01*_desc-synth_bold.json")).read_text())
    assert sidecar["SpatialReference"] == "MNIPediatricAsym:cohort-2"
    code, text = participant("--space", "MNIPediatricAsym:cohort-2")
    assert "2 synthetic runs are there already" in text


def test_a_space_of_each_participant(bids: Path, out: Path, participant: Call) -> None:
    rename(bids / "derivatives", f"space-{SPACE}_res-2", "space-T1w")
    code, text = participant()
    assert code == 65
    assert "the space T1w, which each of the 3 participants has for itself" in text
    assert written(out) == []


def test_a_model_of_another_space(
    bids: Path, out: Path, participant: Call, call: Callable[..., tuple[int, str, str]]
) -> None:
    code, text = participant(space="MNI152NLin6Asym")
    assert code == 65
    assert f"in the space MNI152NLin6Asym, and those of {bids} are in {SPACE}" in text
    assert written(out) == []
    code, _, text = call(bids, out, "group", "--model", out.parent / "model")
    assert code == 65
    assert "in the space MNI152NLin6Asym" in text


def test_derivatives_that_cannot_be_read_are_not_passed_over(
    bids: Path, out: Path, participant: Call
) -> None:
    for path in (bids / "derivatives").rglob("*preproc_bold.nii.gz"):
        raw = bids / path.relative_to(bids / "derivatives" / "fmriprep").parent
        shutil.copy(path, raw / f"{path.name.split('_space-')[0]}_bold.nii.gz")
    rename(bids / "derivatives", "desc-preproc_bold", "desc-denoised_bold")
    code, text = participant()
    assert code == 18
    assert "desc-denoised_bold.nii.gz" in text
    code, text = participant("--use-raw")
    assert code == 0, text
    assert written(out) == [f"sub-0{k}_task-motor_desc-synth_bold.nii.gz" for k in (1, 2, 3)]


def test_names_of_old_fmriprep(bids: Path, out: Path, participant: Call) -> None:
    derivatives = bids / "derivatives"
    rename(derivatives, f"_space-{SPACE}_res-2_desc-preproc_bold", f"_bold_space-{SPACE}_preproc")
    rename(derivatives, f"_space-{SPACE}_res-2_desc-brain_mask", f"_bold_space-{SPACE}_brainmask")
    code, text = participant()
    assert code == 0, text
    assert written(out)[0] == f"sub-01_task-motor_space-{SPACE}_desc-synth_bold.nii.gz"
    sidecar = json.loads(next(out.rglob("sub-01*_desc-synth_bold.json")).read_text())
    assert sidecar["Sources"][0].endswith(f"sub-01_task-motor_bold_space-{SPACE}_preproc.nii.gz")


def test_bidsignore(bids: Path, out: Path, participant: Call) -> None:
    (bids / ".bidsignore").write_text("sub-03/\n")
    code, text = participant()
    assert code == 0, text
    assert [name[:6] for name in written(out)] == ["sub-01", "sub-02"]
    code, text = participant("--participant-label", "03")
    assert code == 18


@pytest.mark.validator
def test_parts_of_complex_images_have_events_in_common(
    bids: Path, out: Path, participant: Call
) -> None:
    rename(bids / "derivatives", "task-motor_", "task-motor_part-mag_")
    code, text = participant()
    assert code == 0, text
    assert (
        written(out)[0] == f"sub-01_task-motor_part-mag_space-{SPACE}_res-2_desc-synth_bold.nii.gz"
    )
    assert written(out, "*_events.tsv")[0] == "sub-01_task-motor_events.tsv"
    assert [i for i in validator_issues(out) if i["severity"] == "error"] == []


def test_masks_that_the_derivatives_lack(bids: Path, out: Path, participant: Call) -> None:
    for mask in bids.rglob("*_mask.nii.gz"):
        mask.unlink()
    code, text = participant()
    assert code == 0, text
    masks = [nib.load(path).get_fdata() > 0 for path in sorted(out.rglob("*_mask.nii.gz"))]
    assert all(mask.sum() > 100 for mask in masks)
