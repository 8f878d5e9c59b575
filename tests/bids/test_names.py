"""BIDS names parse and compose to the same name, and wrong ones are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrisynth.bids.names import compose_name, in_filename_order, parse_name

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
