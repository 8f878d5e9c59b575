"""Which images are chosen: derivatives of other names, forms and places, and what is ignored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bids_tree import SPACE

from fmrisynth.bids.search import find_runs
from fmrisynth.errors import (
    NoMatchError,
)


def _old_names(root: Path) -> None:
    """fMRIPrep 1.0 and 1.1."""
    for path in list((root / "derivatives").rglob(f"*_space-{SPACE}_res-2_desc-*")):
        new = path.name.replace(
            f"_space-{SPACE}_res-2_desc-preproc_bold", f"_bold_space-{SPACE}_preproc"
        )
        new = new.replace(f"_space-{SPACE}_res-2_desc-brain_mask", f"_bold_space-{SPACE}_brainmask")
        path.rename(path.with_name(new))


def test_names_of_old_fmriprep_are_read(tiny_bids_copy: Path) -> None:
    expected = [run.label for run in find_runs(tiny_bids_copy).runs]
    _old_names(tiny_bids_copy)
    for path in (tiny_bids_copy / "derivatives").rglob("*_preproc.nii.gz"):
        confounds = path.name.split("_space-")[0] + "_confounds.tsv"
        path.with_name(confounds).write_text("X\n1\n")
    dataset = find_runs(tiny_bids_copy)
    assert [run.label for run in dataset.runs] == expected
    run = dataset.runs[0]
    assert (run.space, run.start_time) == (SPACE, 1.0)  # its sidecar has the old name, too
    assert run.mask is not None
    assert run.mask.name.endswith("_brainmask.nii.gz")
    assert run.confounds is not None
    assert run.confounds.name == "sub-01_task-motor_bold_confounds.tsv"


def _with_raw_data(root: Path) -> None:
    """Raw images that could be taken in the place of derivatives."""
    for path in (root / "derivatives").rglob("*preproc_bold.nii.gz"):
        raw = path.name.split("_space-")[0] + "_bold.nii.gz"
        shutil.copy(path, root / path.relative_to(root / "derivatives" / "fmriprep").with_name(raw))


def _renamed(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for path in list((root / "derivatives").rglob(f"*{old}*.nii*")):
            path.rename(path.with_name(path.name.replace(old, new)))

    return change


def _as_surfaces(root: Path) -> None:
    for path in list((root / "derivatives").rglob("*preproc_bold.nii.gz")):
        path.rename(
            path.with_name(path.name.split("_space-")[0] + "_hemi-L_space-fsnative_bold.func.gii")
        )


def _as_feat(root: Path) -> None:
    for path in list((root / "derivatives").rglob("*preproc_bold.nii.gz")):
        folder = path.with_name(path.name.split("_space-")[0] + ".feat")
        folder.mkdir()
        path.rename(folder / "filtered_func_data.nii.gz")


def _as_spm(root: Path) -> None:
    for path in list((root / "derivatives").rglob("*preproc_bold.nii.gz")):
        path.rename(path.with_name("swau" + path.name.split("_space-")[0] + "_bold.nii.gz"))


UNREADABLE = {
    "another desc": (_renamed("desc-preproc", "desc-smoothed"), "desc-smoothed_bold"),
    "surfaces alone": (_as_surfaces, r"bold\.func\.gii"),
    "FSL's names": (_as_feat, "filtered_func_data"),
    "SPM's names": (_as_spm, "swausub-01"),
    "CIFTI": (_renamed("desc-preproc_bold", "bold.dtseries"), r"dtseries\.nii"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_derivatives_that_cannot_be_read_are_listed(tiny_bids_copy: Path, case: str) -> None:
    change, listed = UNREADABLE[case]
    _with_raw_data(tiny_bids_copy)
    change(tiny_bids_copy)
    with pytest.raises(NoMatchError, match=f"(?s)no preprocessed BOLD.*{listed}.*--use-raw"):
        find_runs(tiny_bids_copy)
    raw = find_runs(tiny_bids_copy, use_raw=True)
    assert {run.space for run in raw.runs} == {None}
    assert len(raw.runs) == 6


@pytest.mark.parametrize("depth", ["fmriprep", "23.1/fmriprep"])
def test_derivatives_one_level_deeper_are_found(tiny_bids_copy: Path, depth: str) -> None:
    derivatives = tiny_bids_copy / "derivatives"
    (derivatives / "fmriprep").rename(tiny_bids_copy / "moved")
    (derivatives / depth).parent.mkdir(parents=True, exist_ok=True)
    (tiny_bids_copy / "moved").rename(derivatives / depth)
    assert find_runs(tiny_bids_copy).derivatives.keys() == {"fmriprep"}


def test_derivatives_without_functional_images_are_no_obstacle(tiny_bids_copy: Path) -> None:
    _with_raw_data(tiny_bids_copy)
    shutil.rmtree(tiny_bids_copy / "derivatives" / "fmriprep")
    folder = tiny_bids_copy / "derivatives" / "mriqc" / "sub-01" / "func"
    folder.mkdir(parents=True)
    (folder / "sub-01_task-motor_bold.json").write_text("{}")
    (folder / "sub-01_task-motor_desc-brain_mask.nii.gz").touch()
    assert len(find_runs(tiny_bids_copy).runs) == 6


@pytest.mark.parametrize(("raw", "preprocessed"), [("01", "1"), ("1", "001")])
def test_numbers_of_runs_are_compared_as_numbers(
    bids_factory: Callable[..., Path], raw: str, preprocessed: str
) -> None:
    root = bids_factory(runs=(raw, "2"))
    for path in list((root / "derivatives").rglob(f"*_run-{raw}_*")):
        path.rename(path.with_name(path.name.replace(f"_run-{raw}_", f"_run-{preprocessed}_")))
    dataset = find_runs(root)
    assert len(dataset.runs) == 12
    assert {run.entities["run"] for run in dataset.runs} == {preprocessed, "2"}
    run = next(run for run in dataset.runs if run.entities["run"] == preprocessed)
    assert run.events is not None
    assert f"run-{raw}_events" in run.events.name


def test_one_run_under_two_names_is_one_run(bids_factory: Callable[..., Path]) -> None:
    root = bids_factory(runs=("1",), tasks=("motor",))
    for path in list((root / "derivatives").rglob("*_run-1_*")):
        shutil.copy(path, path.with_name(path.name.replace("_run-1_", "_run-01_")))
    dataset = find_runs(root)
    assert len(dataset.runs) == 3
    assert len(dataset.skipped) == 3
    assert all("names the same run" in reason for _, reason in dataset.skipped)


@pytest.mark.parametrize(
    "pattern",
    ["sub-03/", "sub-03", "/sub-03/**", "**/sub-03_*_bold.nii.gz", "/sub-*\n!/sub-01\n!/sub-02"],
)
def test_bidsignore_is_honoured(tiny_bids_copy: Path, pattern: str) -> None:
    (tiny_bids_copy / ".bidsignore").write_text(f"# a comment\n{pattern}\n")
    runs = find_runs(tiny_bids_copy).runs
    assert "03" not in {run.participant for run in runs}
    assert len(runs) == 4


def test_everything_ignored(tiny_bids_copy: Path) -> None:
    (tiny_bids_copy / ".bidsignore").write_text("sub-*\n")
    with pytest.raises(NoMatchError, match=r"\.bidsignore"):
        find_runs(tiny_bids_copy)
