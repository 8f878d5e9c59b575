"""Output directories that could touch the input are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmrisynth.bids.locations import check_output_dir, check_work_dir
from fmrisynth.errors import OutputError, UsageError


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
