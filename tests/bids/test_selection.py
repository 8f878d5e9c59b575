"""Selections of runs: labels, and the values of a BIDS filter file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fmrisynth.bids.selection import Selection, matches_filter, read_filter_file
from fmrisynth.errors import DataError, UsageError


def test_selection_strips_prefixes_and_repeats() -> None:
    selection = Selection(
        participants=("sub-01", "01", "02"), sessions=("ses-a",), tasks=("task-wm", "wm")
    )
    assert selection.participants == ("01", "02")
    assert selection.sessions == ("a",)
    assert selection.tasks == ("wm",)
    spaced = Selection(space="space-MNI152Lin:res-2")
    assert (spaced.space_name, spaced.resolution) == ("MNI152Lin", "2")


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
