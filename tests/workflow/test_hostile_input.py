"""Hostile input at the command line: each case with its message and its exit code.

One participant of two is damaged. Its run is reported and left out, the other one
is written, and the exit code says that something is missing, unless
``--skip-bad-runs`` accepts it. Odd but valid input is used as any other.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bids_tree import make_bids
from support.hostile_datasets import CASES, scaled_integers
from support.tiny_model import make_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bids(
        tmp_path_factory.mktemp("hostile") / "bids", participants=("01", "02"), tasks=("motor",)
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hostile") / "model"
    make_model().save(directory)
    return directory


@pytest.fixture
def bids(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "bids"))


Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(call: Callable[..., tuple[int, str, str]], model: Path, tmp_path: Path) -> Call:
    """Run the participant level with a ready model; returns exit code and messages."""

    def run(bids_dir: Path, *words: str) -> tuple[int, str]:
        options = ["--model", model, "--sampling-steps", 1, "--device", "cpu"]
        options += ["--precision", "32-true", *words]
        code, _, text = call(bids_dir, tmp_path / "out", "participant", *options, validate=True)
        return code, text

    return run


def written(out: Path) -> list[str]:
    """Synthetic images, and no half of anything."""
    assert not [path for path in out.rglob("*") if "~" in path.name]
    return [path.name for path in sorted(out.rglob("*_desc-synth_bold.nii.gz"))]


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("name", CASES)
def test_hostile_input(name: str, bids: Path, tmp_path: Path, call: Call) -> None:
    case = CASES[name]
    case.damage(bids)
    code, text = call(bids)
    assert re.search(case.message, text, re.DOTALL), text
    assert code == case.code, text
    images = written(tmp_path / "out")
    assert len(images) == case.images
    if case.images == 1:  # all else is there, the bad run is named, and may be accepted
        assert images[0].startswith("sub-01_")
        assert "sub-02" in text
        assert "--skip-bad-runs" in text
        assert call(bids, "--skip-bad-runs")[0] == 0
        assert written(tmp_path / "out") == images
    for path in (tmp_path / "out").rglob("*_events.tsv"):
        table = path.read_bytes().decode("utf-8")
        assert table.split("\t")[:2] == ["onset", "duration"]


def test_scaled_integers_mean_what_they_say(bids: Path, tmp_path: Path, call: Call) -> None:
    """The same numbers, stored as integers, give the same synthetic run."""
    assert call(bids)[0] == 0
    image = next((tmp_path / "out").rglob("sub-02*_bold.nii.gz"))
    before = nib.load(image).get_fdata()
    shutil.rmtree(tmp_path / "out")
    scaled_integers(bids)
    assert call(bids)[0] == 0
    np.testing.assert_allclose(nib.load(image).get_fdata(), before, rtol=1e-3, atol=0.5)


def test_no_run_is_good(bids: Path, tmp_path: Path, call: Call) -> None:
    for path in bids.rglob("*preproc_bold.nii.gz"):
        path.write_bytes(b"")
    for words in ((), ("--skip-bad-runs",)):  # nothing at all is no success
        code, text = call(bids, *words)
        assert code == 65
        assert "none of the 2 BOLD images" in text
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("{", 65, "filter.json cannot be read as JSON"),
        ("[]", 65, "filter.json holds a JSON list"),
        (b"\xff\xfe", 65, "filter.json cannot be read as JSON"),
        ('{"bold": 3}', 65, "'bold' must hold an object"),
        ('{"bold": {"colour": "red"}}', 64, "unknown entities in the filter: colour"),
        ('{"bold": {"task": "../.."}}', 18, "none has the participants"),
        (None, 64, "there is no such file"),
    ],
)
def test_hostile_filter_files(
    bids: Path, tmp_path: Path, call: Call, content: str | bytes | None, code: int, message: str
) -> None:
    path = tmp_path / "filter.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found, text = call(bids, "--bids-filter-file", str(path))
    assert found == code, text
    assert message in text
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize("place", ["sub-02", "sub-02/func"])
def test_a_link_does_not_lead_out_of_the_output(
    bids: Path, tmp_path: Path, call: Call, place: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "out" / place
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(outside)
    code, text = call(bids)
    assert code == 73, text
    assert "leads out of the output directory" in text
    assert not [path for path in outside.rglob("*") if path.is_file()]


def test_input_is_left_as_it_was(bids: Path, call: Call) -> None:
    CASES["gzip truncated in the voxels"].damage(bids)
    before = {path: path.stat().st_mtime_ns for path in bids.rglob("*")}
    call(bids)
    assert {path: path.stat().st_mtime_ns for path in bids.rglob("*")} == before
