"""Runs without events are learned, written and compared, from the command line."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support.bids_tree import make_bids

pytestmark = pytest.mark.slow

SMALL = [
    *("--set", "preprocess.voxel_size=4"),
    *("--set", "denoiser.backbone.widths=[16, 32]"),
    *("--set", "denoiser.backbone.blocks=[1, 1]"),
    *("--max-steps", 2, "--sampling-steps", 1, "--precision", "32-true", "--device", "cpu"),
]


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Three participants at rest."""
    root = make_bids(tmp_path / "bids", tasks=("rest",), n_volumes=40)
    for events in root.rglob("*_events.tsv"):
        events.unlink()
    return root


def test_rest_alone(call, bids: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, text = call(bids, out, "participant", *SMALL)
    assert code == 0, text
    images = sorted(out.rglob("*_desc-synth_bold.nii.gz"))
    assert [path.name[:16] for path in images] == [f"sub-0{k}_task-rest_"[:16] for k in (1, 2, 3)]
    assert not list(out.rglob("*_events.*"))
    for path in images:
        data = nib.load(path).get_fdata()
        assert np.isfinite(data).all()
        assert data.std(axis=-1).max() > 0
    code, _, text = call(bids, out, "group", "--baselines", "group-glm", "--device", "cpu")
    assert code == 0, text
    table = pd.read_csv(out / "group" / "metrics.tsv", sep="\t")
    own = table[table["generator"] == "fmrisynth"].set_index("metric")["value"]
    for metric in ("temporal_sd_ratio", "fwhm_ratio"):
        assert own[metric] > 0
    assert np.isfinite(own["lag1_ratio"])  # of noise that is nearly white, of either sign
    assert not [name for name in own.index if name.startswith(("corr", "slope", "dice"))]
    assert (out / "group.html").is_file()
    assert (out / "sub-01.html").is_file()


def test_rest_beside_a_task(call, tmp_path: Path) -> None:
    root = make_bids(tmp_path / "bids", tasks=("motor", "rest"), n_volumes=40)
    for events in root.rglob("*task-rest*_events.tsv"):
        events.unlink()
    out = tmp_path / "out"
    code, _, text = call(root, out, "participant", *SMALL)
    assert code == 0, text
    names = [path.name for path in sorted(out.rglob("*_desc-synth_bold.nii.gz"))]
    assert len(names) == 6
    assert sorted(path.name for path in out.rglob("*_events.tsv")) == [
        f"sub-0{k}_task-motor_events.tsv" for k in (1, 2, 3)
    ]
    code, _, text = call(root, out, "group", "--baselines", "none", "--device", "cpu")
    assert code == 0, text
    table = pd.read_csv(out / "group" / "metrics.tsv", sep="\t")
    assert "corr" in {name.split("[")[0] for name in table["metric"]}
