"""`find_runs` finds the runs of each form of input, and says why it finds none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bids_tree import FUNC, MOTOR, SPACE, make_bids, write_description, write_nifti

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.search import find_bold_runs, find_runs
from fmrisynth.bids.selection import Selection
from fmrisynth.errors import (
    DataError,
    FmrisynthError,
    NoInputError,
    NoMatchError,
    NotBIDSError,
    UsageError,
)


def test_raw_with_derivatives(tiny_bids: Path) -> None:
    dataset = find_runs(tiny_bids)
    assert [run.label for run in dataset.runs] == [
        f"sub-0{i}_task-{task}" for i in (1, 2, 3) for task in ("motor", "wm")
    ]
    assert dataset.skipped == ()
    assert dataset.derivatives == {"fmriprep": tiny_bids.resolve() / "derivatives" / "fmriprep"}
    run = dataset.runs[0]
    assert run.bold.name == f"{MOTOR}.nii.gz"
    assert run.mask is not None
    assert run.mask.name == f"{MOTOR}.nii.gz".replace("preproc_bold", "brain_mask")
    assert run.events == tiny_bids.resolve() / "sub-01/func/sub-01_task-motor_events.tsv"
    assert (run.space, run.resolution, run.t_r, run.start_time) == (SPACE, "2", 2.0, 1.0)
    assert (run.shape, run.n_volumes, run.duration) == ((8, 9, 8), 20, 40.0)
    assert run.phase_encoding == "j-"  # from the raw task-level sidecar, by inheritance
    assert run.site == "scanner0"
    assert run.metadata["SkullStripped"] is True
    np.testing.assert_array_equal(run.affine, nib.load(run.bold).affine)


def test_derivatives_given_by_name_and_elsewhere(tiny_bids_copy: Path, tmp_path: Path) -> None:
    moved = shutil.move(tiny_bids_copy / "derivatives" / "fmriprep", tmp_path / "prep")
    dataset = find_runs(tiny_bids_copy, derivatives={"mine": Path(moved)})
    assert dataset.derivatives == {"mine": Path(moved).resolve()}
    assert len(find_runs(tiny_bids_copy, derivatives=[Path(moved)]).runs) == 6


def test_a_tree_that_holds_events_itself(tiny_bids_copy: Path) -> None:
    prep = tiny_bids_copy / "derivatives" / "fmriprep"
    for events in tiny_bids_copy.glob("sub-*/func/*_events.tsv"):
        shutil.copy(events, prep / events.relative_to(tiny_bids_copy))
    dataset = find_runs(prep)
    assert len(dataset.runs) == 6
    assert all(run.events.is_relative_to(prep.resolve()) for run in dataset.runs)
    assert dataset.derivatives == {}


def test_raw_images_that_share_one_space(bids_factory: Callable[..., Path]) -> None:
    dataset = find_runs(bids_factory(derivatives=None))
    assert len(dataset.runs) == 6
    assert all(run.space is None and run.mask is None for run in dataset.runs)


def test_raw_images_in_scanner_space_are_refused(bids_factory: Callable[..., Path]) -> None:
    root = bids_factory(derivatives=None)
    path = root / "sub-02/func/sub-02_task-motor_bold.nii.gz"
    image = nib.load(path)
    turned = image.affine @ nib.affines.from_matvec(nib.eulerangles.euler2mat(x=0.1))
    write_nifti(path, image.get_fdata(dtype="f4"), turned, t_r=2.0, code=1)
    with pytest.raises(DataError, match=r"do not lie in one space.*--derivatives"):
        find_runs(root)


def test_sessions_runs_and_events_by_inheritance(bids_factory: Callable[..., Path]) -> None:
    root = bids_factory(participants=("01",), sessions=("a", "b"), runs=("1", "2"))
    for events in root.glob("sub-*/ses-*/func/*task-wm*_events.tsv"):
        shutil.move(events, root / "task-wm_events.tsv")
    dataset = find_runs(root, selection=Selection(sessions=("ses-b",)))
    assert [run.label for run in dataset.runs] == [
        f"sub-01_ses-b_task-{task}_run-{run}" for task in ("motor", "wm") for run in "12"
    ]
    assert {run.events for run in dataset.runs if run.task == "wm"} == {
        root.resolve() / "task-wm_events.tsv"
    }


def test_entities_and_metadata_as_pybids_finds_them(bids_factory: Callable[..., Path]) -> None:
    from bids import BIDSLayout

    root = bids_factory(sessions=("a",), runs=("1",))
    session = root / "sub-02" / "ses-a"
    (session / "sub-02_ses-a_bold.json").write_text('{"InstitutionName": "Here"}')
    (session / "func" / "sub-02_ses-a_task-wm_run-1_bold.json").write_text(
        '{"PhaseEncodingDirection": "i"}'
    )
    layout = BIDSLayout(root, validate=False)
    for run in find_runs(root).runs:
        raw = session.parents[1] / f"sub-{run.participant}/ses-a/func/{run.label}_bold.nii.gz"
        entities = layout.get_file(str(raw.resolve())).get_entities()
        assert entities["subject"] == run.participant
        assert entities["task"] == run.task
        metadata = layout.get_metadata(str(raw.resolve()))
        assert run.phase_encoding == metadata["PhaseEncodingDirection"]
        assert run.site == metadata.get("InstitutionName", run.site)


def test_names_above_the_dataset_do_not_matter(tmp_path: Path) -> None:
    root = make_bids(tmp_path / "sub-99" / "ses-x" / "bids", participants=("01",))
    assert {run.participant for run in find_runs(root).runs} == {"01"}


def test_what_is_no_input_is_passed_over(tiny_bids_copy: Path) -> None:
    prep = tiny_bids_copy / "derivatives" / "fmriprep"
    own = tiny_bids_copy / "derivatives" / "fmrisynth"
    shutil.copytree(prep, own)
    write_description(own, DatasetType="derivative", GeneratedBy=[{"Name": "fmrisynth"}])
    shutil.copytree(prep / "sub-01", tiny_bids_copy / "sourcedata" / "sub-77")
    shutil.copytree(prep, prep / "derivatives" / "nested")
    source = prep / "sub-01" / "func" / f"{MOTOR}.nii.gz"
    shutil.copy(source, source.with_name(f"{MOTOR}.nii.gz".replace("preproc", "synth")))
    shutil.copy(source, source.with_name("._" + source.name))
    dataset = find_runs(tiny_bids_copy)
    assert len(dataset.runs) == 6
    assert dataset.skipped == ()


@pytest.mark.parametrize(
    ("spaces", "asked", "expected"),
    [
        (["T1w", SPACE, "MNI152NLin6Asym"], None, SPACE),
        (["T1w", "MNI152NLin6Asym"], None, "MNI152NLin6Asym"),
        ([SPACE, "MNI152NLin6Asym"], "MNI152NLin6Asym", "MNI152NLin6Asym"),
        (["custom"], None, "custom"),
    ],
)
def test_choice_of_space(
    tiny_bids_copy: Path, spaces: list[str], asked: str | None, expected: str
) -> None:
    _respaced(tiny_bids_copy, spaces)
    dataset = find_runs(tiny_bids_copy, selection=Selection(space=asked))
    assert {run.space for run in dataset.runs} == {expected}
    assert len(dataset.runs) == 6
    assert all(
        run.mask is not None and f"space-{expected}_" in run.mask.name for run in dataset.runs
    )


def test_spaces_without_a_usual_choice(tiny_bids_copy: Path) -> None:
    _respaced(tiny_bids_copy, ["T1w", "custom"])
    with pytest.raises(UsageError, match=r"T1w, custom.*--space"):
        find_runs(tiny_bids_copy)


@pytest.mark.parametrize("asked", [None, "T1w"])
@pytest.mark.parametrize("space", ["T1w", "individual", "boldref"])
def test_a_space_of_each_participant_is_refused(
    tiny_bids_copy: Path, space: str, asked: str | None
) -> None:
    _respaced(tiny_bids_copy, [space])
    with pytest.raises(DataError, match=f"space {space}, which each of the 3 participants"):
        find_runs(tiny_bids_copy, selection=Selection(space=asked and space))


def test_one_participant_shares_its_space_with_nobody(bids_factory: Callable[..., Path]) -> None:
    dataset = find_runs(bids_factory(participants=("01",), space="T1w"))
    assert {run.space for run in dataset.runs} == {"T1w"}


def _in_cohorts(root: Path, cohorts: dict[str, str]) -> None:
    for path in list(root.glob(f"derivatives/fmriprep/sub-*/func/*space-{SPACE}*")):
        cohort = cohorts[path.name[4:6]]
        new = path.name.replace(f"space-{SPACE}", f"space-MNIPediatricAsym_cohort-{cohort}")
        path.rename(path.with_name(new))


def test_cohorts_of_a_template_are_different_spaces(tiny_bids_copy: Path) -> None:
    _in_cohorts(tiny_bids_copy, {"01": "2", "02": "2", "03": "5"})
    for asked in (None, "MNIPediatricAsym", "MNIPediatricAsym:res-2"):
        with pytest.raises(UsageError, match=r"cohort-2, MNIPediatricAsym:cohort-5.*--space"):
            find_runs(tiny_bids_copy, selection=Selection(space=asked))
    for asked in ("MNIPediatricAsym:cohort-2", "MNIPediatricAsym:cohort-2:res-2"):
        dataset = find_runs(tiny_bids_copy, selection=Selection(space=asked))
        assert {(r.participant, r.space, r.cohort) for r in dataset.runs} == {
            ("01", "MNIPediatricAsym", "2"),
            ("02", "MNIPediatricAsym", "2"),
        }
        assert dataset.skipped == ()  # the others were not asked for
        assert all(r.mask is not None and "cohort-2" in r.mask.name for r in dataset.runs)
    with pytest.raises(NoMatchError, match="cohort-9"):
        find_runs(tiny_bids_copy, selection=Selection(space="MNIPediatricAsym:cohort-9"))


def test_one_cohort_is_found_without_its_label(tiny_bids_copy: Path) -> None:
    _in_cohorts(tiny_bids_copy, {"01": "2", "02": "2", "03": "2"})
    for asked in (None, "MNIPediatricAsym"):
        runs = find_runs(tiny_bids_copy, selection=Selection(space=asked)).runs
        assert {run.space_name for run in runs} == {"MNIPediatricAsym:cohort-2"}


def _respaced(root: Path, spaces: list[str]) -> None:
    for path in list(root.glob(f"derivatives/fmriprep/sub-*/func/*space-{SPACE}*")):
        content = path.read_bytes()
        path.unlink()
        for space in spaces:
            path.with_name(path.name.replace(SPACE, space)).write_bytes(content)


def test_native_resolution_goes_first(tiny_bids_copy: Path) -> None:
    for path in tiny_bids_copy.glob("derivatives/fmriprep/sub-*/func/*_res-2_*"):
        shutil.copy(path, path.with_name(path.name.replace("_res-2", "")))
    assert {run.resolution for run in find_runs(tiny_bids_copy).runs} == {None}
    asked = find_runs(tiny_bids_copy, selection=Selection(space=f"{SPACE}:res-2"))
    assert {run.resolution for run in asked.runs} == {"2"}
    with pytest.raises(NoMatchError, match=r"res-9\. There are: \(no res entity\), 2"):
        find_runs(tiny_bids_copy, selection=Selection(space=f"{SPACE}:res-9"))


def test_combined_echoes_go_first_and_single_ones_need_a_filter(tiny_bids_copy: Path) -> None:
    folder = tiny_bids_copy / FUNC
    for path in list(folder.glob("*task-motor*")):
        for echo in "12":
            shutil.copy(path, path.with_name(path.name.replace("_space", f"_echo-{echo}_space")))
    assert find_runs(tiny_bids_copy).runs[0].bold.name == f"{MOTOR}.nii.gz"
    (folder / f"{MOTOR}.nii.gz").unlink()
    dataset = find_runs(tiny_bids_copy)
    assert len(dataset.runs) == 5
    assert "single echoes" in dataset.skipped[0][1]
    chosen = find_runs(
        tiny_bids_copy, selection=Selection(filters={"bold": {"echo": 2}, "t1w": {}})
    )
    assert [run.label for run in chosen.runs] == ["sub-01_task-motor"]
    assert "_echo-2_" in chosen.runs[0].bold.name


def _without_events(root: Path, task: str) -> None:
    for path in list(root.rglob("*task-wm*")):
        path.rename(path.with_name(path.name.replace("task-wm", f"task-{task}")))
    for events in root.rglob(f"*task-{task}*_events.tsv"):
        events.unlink()


@pytest.mark.parametrize(("task", "warned"), [("rest", False), ("movie", True)])
def test_runs_of_a_task_without_events_are_runs(
    tiny_bids_copy: Path, caplog: pytest.LogCaptureFixture, task: str, warned: bool
) -> None:
    _without_events(tiny_bids_copy, task)
    dataset = find_runs(tiny_bids_copy)
    assert [(r.task, r.events is None) for r in dataset.runs[:2]] == sorted(
        [("motor", False), (task, True)]
    )
    assert dataset.skipped == ()
    assert ("no run of the task movie has events.tsv" in caplog.text) is warned


def test_a_run_that_lacks_the_events_of_its_task_is_skipped(tiny_bids_copy: Path) -> None:
    (tiny_bids_copy / "sub-02/func/sub-02_task-wm_events.tsv").unlink()
    dataset = find_runs(tiny_bids_copy)
    assert len(dataset.runs) == 5
    ((path, reason),) = dataset.skipped
    assert path.name.startswith("sub-02_task-wm")
    assert "although other runs of the task have events" in reason


def test_derivatives_without_their_raw_dataset(tiny_bids: Path) -> None:
    with pytest.raises(NoMatchError, match=r"is a derivative.*as BIDS_DIR.*--derivatives"):
        find_runs(tiny_bids / "derivatives" / "fmriprep")


def test_bold_runs_include_resting_state(tiny_bids_copy: Path) -> None:
    _without_events(tiny_bids_copy, "rest")
    runs = find_bold_runs(tiny_bids_copy)
    assert [(run.task, isinstance(run, Run)) for run in runs[:2]] == [
        ("motor", True),
        ("rest", False),
    ]
    assert len(runs) == 6
    assert runs[1].t_r == runs[0].t_r
    assert runs[1].mask is not None


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        (Selection(participants=("01", "9")), NoMatchError, r"participant 9.*It has: 01, 02, 03"),
        (Selection(sessions=("a",)), NoMatchError, "session a.*no session labels"),
        (Selection(tasks=("rest",)), NoMatchError, r"task rest.*It has: motor, wm"),
        (Selection(space="T1w"), NoMatchError, rf"space T1w. There are: {SPACE}"),
        (Selection(filters={"bold": {"run": 7}}), NoMatchError, "asked for together"),
    ],
)
def test_what_does_not_exist(
    tiny_bids: Path, selection: Selection, error: type[FmrisynthError], message: str
) -> None:
    with pytest.raises(error, match=message):
        find_runs(tiny_bids, selection=selection)


def test_roots_that_are_no_datasets(tiny_bids_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="does not exist"):
        find_runs(tmp_path / "absent")
    with pytest.raises(NoInputError, match="is a file"):
        find_runs(tiny_bids_copy / "participants.tsv")
    with pytest.raises(NotBIDSError, match=r"Did you mean .*bids"):
        find_runs(tiny_bids_copy / "sub-01")
    with pytest.raises(NotBIDSError, match=r"Did you mean .*bids"):
        find_runs(tmp_path)
    with pytest.raises(NotBIDSError, match="the derivatives directory"):
        find_runs(tiny_bids_copy, derivatives=[tmp_path])
    with pytest.raises(NoInputError, match="the derivatives directory"):
        find_runs(tiny_bids_copy, derivatives=[tmp_path / "absent"])
    (tiny_bids_copy / "dataset_description.json").write_text("{}")
    with pytest.raises(NotBIDSError, match="no Name"):
        find_runs(tiny_bids_copy)
    (tiny_bids_copy / "dataset_description.json").write_text("{")
    with pytest.raises(NotBIDSError, match="JSON"):
        find_runs(tiny_bids_copy)


def test_no_runs_at_all(tiny_bids_copy: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    write_description(empty)
    with pytest.raises(NoMatchError, match="no BOLD image of a task"):
        find_runs(empty)
    with pytest.raises(NoMatchError, match="no preprocessed BOLD"):
        find_runs(tiny_bids_copy, derivatives=[empty])


def test_derivatives_with_a_description_go_first(
    tiny_bids_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prep = tiny_bids_copy / "derivatives" / "fmriprep"
    another = Path(shutil.copytree(prep, tiny_bids_copy / "derivatives" / "zzz"))
    (prep / "dataset_description.json").unlink()
    assert find_runs(tiny_bids_copy).derivatives.keys() == {"zzz"}
    shutil.rmtree(another)
    assert find_runs(tiny_bids_copy).derivatives.keys() == {"fmriprep"}
    assert "has no dataset_description.json and is read all the same" in caplog.text


def test_a_damaged_database_is_made_anew(tiny_bids: Path, tmp_path: Path) -> None:
    first = find_runs(tiny_bids, database_dir=tmp_path)
    files = sorted(tmp_path.rglob("*.json"))
    assert {path.name for path in files} == {"images.json", "headers.json"}
    whole = [path.read_bytes() for path in files]
    for content in (b"", b"{", b"[]", b"{}", b"\xff"):
        for path in files:
            path.write_bytes(content)
        found = find_runs(tiny_bids, database_dir=tmp_path)
        assert [run.bold for run in found.runs] == [run.bold for run in first.runs]
        assert [path.read_bytes() for path in files] == whole


def test_database_follows_the_disk(tiny_bids_copy: Path, tmp_path: Path) -> None:
    database = tmp_path / "db"
    first = find_runs(tiny_bids_copy, database_dir=database)
    again = find_runs(tiny_bids_copy, database_dir=database)
    assert [run.label for run in again.runs] == [run.label for run in first.runs]
    np.testing.assert_array_equal(again.runs[0].affine, first.runs[0].affine)
    (tiny_bids_copy / FUNC / f"{MOTOR}.nii.gz").unlink()
    assert len(find_runs(tiny_bids_copy, database_dir=database).runs) == 5
    # A changed image is read anew, though its name is the same.
    other = tiny_bids_copy / FUNC / f"{MOTOR}.nii.gz".replace("motor", "wm")
    write_nifti(other, np.ones((8, 9, 8, 12), "f4"), np.diag([2.0, 2, 2, 1]), t_r=2.0)
    assert find_runs(tiny_bids_copy, database_dir=database).runs[0].n_volumes == 12


def test_the_input_is_never_written_to(tiny_bids: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_bids.rglob("*")}
    find_runs(tiny_bids)
    assert {path: path.stat().st_mtime_ns for path in tiny_bids.rglob("*")} == before
