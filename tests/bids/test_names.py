"""BIDS names, labels, the filter file and places for output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrisynth.bids.locations import check_output_dir, check_work_dir
from fmrisynth.bids.names import compose_name, in_filename_order, parse_name
from fmrisynth.bids.selection import Selection, matches_filter, read_filter_file
from fmrisynth.errors import DataError, OutputError, UsageError

LABELS = st.from_regex(r"[A-Za-z0-9]{1,8}", fullmatch=True)


@given(sub=LABELS, task=LABELS, run=LABELS, space=LABELS)
def test_composed_names_parse_back(sub: str, task: str, run: str, space: str) -> None:
    entities = in_filename_order({"space": space, "run": run, "task": task, "sub": sub})
    assert list(entities) == ["sub", "task", "run", "space"]
    parsed = parse_name(compose_name(entities, "bold", ".nii.gz"))
    assert (parsed.entities, parsed.suffix, parsed.extension) == (entities, "bold", ".nii.gz")


@pytest.mark.parametrize(
    "name",
    [
        "sub-a.b_task-x_bold.nii.gz",
        "sub-_task-x_bold.nii.gz",
        "sub-ä_task-x_bold.nii.gz",
        "sub-1_sub-2_bold.nii.gz",
        "notbids_bold.nii.gz",
        "sub-1_task-x_.nii.gz",
        "",
    ],
)
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        parse_name(name)


@pytest.mark.parametrize("label", ["../x", "a/b", "", "a_b", "a\n", "é", "."])
def test_labels_cannot_leave_their_folder(label: str) -> None:
    with pytest.raises(ValueError, match="letters and digits"):
        compose_name({"sub": label}, "bold", ".nii.gz")


def test_selection_strips_prefixes_and_repeats() -> None:
    selection = Selection(
        participants=("sub-01", "01", "02"), sessions=("ses-a",), tasks=("task-wm", "wm")
    )
    assert selection.participants == ("01", "02")
    assert selection.sessions == ("a",)
    assert selection.tasks == ("wm",)
    spaced = Selection(space="space-MNI152Lin:res-2")
    assert (spaced.space_label, spaced.resolution) == ("MNI152Lin", "2")


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"session": "a"}, True),
        ({"session": ["a", "b"]}, True),
        ({"session": "b"}, False),
        ({"session": None}, False),
        ({"acquisition": None}, True),
        ({"acquisition": "Query.NONE"}, True),
        ({"acquisition": "*"}, False),
        ({"session": "Query.ANY"}, True),
        ({"run": 1}, True),
        ({"run": [2, 3]}, False),
        ({"acquisition": "Query.OPTIONAL"}, True),
    ],
)
def test_filter_values(tmp_path: Path, wanted: dict[str, object], fits: bool) -> None:
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"bold": wanted, "t1w": {"session": "x"}}))
    selection = Selection(filters=read_filter_file(path))
    entities = {"sub": "1", "ses": "a", "task": "x", "run": "01"}
    assert matches_filter(entities, selection.bold_filter) is fits


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{bold:", DataError, "JSON"),
        ("[1]", DataError, "an object is expected"),
        ('{"bold": 1}', DataError, "'bold' must hold"),
        ('{"bold": {"sesion": "1"}}', UsageError, "sesion"),
        (None, UsageError, "there is no such file"),
    ],
)
def test_wrong_filter_files(
    tmp_path: Path, content: str | None, error: type[Exception], message: str
) -> None:
    path = tmp_path / "filter.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=message):
        read_filter_file(path)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("bids", "is the input"),
        (".", "holds the input"),
        ("bids/out", "inside the input"),
        ("bids/sub-01", "inside the input"),
        ("bids/derivatives", "inside the input"),
        ("bids/derivatives/a/b", "inside the input"),
        ("out/../bids/x", "inside the input"),
        ("link/x", "inside the input"),
        ("prep", "overlaps with the derivatives"),
        ("prep/x", "overlaps with the derivatives"),
        ("file", "is a file"),
        ("bids/derivatives/other", "did not write"),
    ],
)
def test_outputs_that_would_touch_the_input(tmp_path: Path, output: str, message: str) -> None:
    bids, prep = tmp_path / "bids", tmp_path / "prep"
    other = bids / "derivatives" / "other"
    for folder in (other, prep, tmp_path / "out"):
        folder.mkdir(parents=True)
    (other / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "fMRIPrep"}]}')
    (tmp_path / "link").symlink_to(bids)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=message):
        check_output_dir(bids, tmp_path / output, [prep])


def test_allowed_outputs(tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    mine = bids / "derivatives" / "fmrisynth"
    mine.mkdir(parents=True)
    (mine / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "fmrisynth"}]}')
    assert check_output_dir(bids, mine) == mine.resolve()
    assert check_output_dir(bids, tmp_path / "out") == (tmp_path / "out").resolve()
    assert check_work_dir(bids, tmp_path / "work") == (tmp_path / "work").resolve()
    with pytest.raises(UsageError, match="inside the input"):
        check_work_dir(bids, bids / "work")
