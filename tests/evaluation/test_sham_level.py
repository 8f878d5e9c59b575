"""The short form of ``tests/campaigns/sham_level.py``: little is found where nothing happened."""

import re
from pathlib import Path

import pytest
from campaigns import sham_level
from support.bids_tree import make_bids


@pytest.mark.campaign
@pytest.mark.slow
def test_little_is_found_in_made_up_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [f"{k:02d}" for k in range(1, 9)]
    root = make_bids(tmp_path / "bids", participants=labels, tasks=("rest",), n_volumes=80)
    for events in root.rglob("*_events.tsv"):
        events.unlink()
    assert sham_level.main([str(root), str(tmp_path / "events"), "--draws", "6"]) == 0
    text = capsys.readouterr().out
    active, correlation = (float(n) for n in re.findall(r"nominal .*?: (-?[\d.]+) \(", text))
    assert 0 < active < 0.05
    assert abs(correlation) < 0.2
