"""The group level judges runs that another program wrote, here nilearn and numpy."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix
from nilearn.image import mean_img, new_img_like
from support.bids_tree import make_bids

from fmrisynth import find_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset, and images that nilearn and numpy make for two of its participants."""
    root = tmp_path_factory.mktemp("others")
    bids = make_bids(root / "bids")
    for name in ("theirs", "silent"):
        for run in runs_of(bids)[-2:]:
            imitate(root / name, run, responding=name == "theirs")
    return bids, root


def runs_of(bids):
    """One run of each participant, and all of the last two."""
    runs = find_runs(bids).runs
    last = sorted({run.participant for run in runs})[-2:]
    return [[run for run in runs if run.participant == label] for label in last]


def imitate(root, runs, responding):
    """Write white noise on the run's mean image, with the responses of an ordinary GLM or none."""
    for run in runs:
        rng = np.random.default_rng(len(list(root.rglob("*.nii.gz"))))
        times = run.start_time + run.t_r * np.arange(run.n_volumes)
        events = pd.read_csv(run.events, sep="\t")[["onset", "duration", "trial_type"]]
        design = make_first_level_design_matrix(times, events, drift_model=None)
        mean = mean_img(str(run.bold), copy_header=True)
        real = nib.load(run.bold).get_fdata().reshape(-1, run.n_volumes).T
        effects, *_ = np.linalg.lstsq(design.to_numpy(), real, rcond=None)
        noise = 0.01 * real.mean(axis=0) * rng.normal(size=real.shape)
        series = real.mean(axis=0) + noise
        if responding:
            series += design.iloc[:, :-1].to_numpy() @ effects[:-1]  # the last one is the constant
        image = new_img_like(mean, series.T.reshape(*run.shape, run.n_volumes))
        folder = root / f"sub-{run.participant}" / "func"
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(image, folder / f"{run.label}_bold.nii.gz")


def test_runs_of_another_program_are_judged_without_a_model(call, dataset, tmp_path):
    bids, root = dataset
    code, _, errors = call(
        bids, tmp_path / "out", "group", "--synthetic", f"theirs={root / 'theirs'}",
        f"silent={root / 'silent'}", "--baselines", "none", "--sham", "-w", tmp_path / "work",
    )  # fmt: skip
    assert not code, errors
    table = pd.read_csv(tmp_path / "out" / "group" / "metrics.tsv", sep="\t", na_values="n/a")
    assert list(dict.fromkeys(table["generator"])) == ["theirs", "silent", "sham", "real"]
    values = table.set_index(["metric", "generator"])["value"]
    assert values["slope", "theirs"] > values["slope", "silent"] + 0.1
    page = (tmp_path / "out" / "group.html").read_text(encoding="utf-8")
    assert "theirs" in page
    assert not (tmp_path / "out" / "model").exists()


def test_a_folder_without_runs_named_like_real_ones_is_refused(call, dataset, tmp_path):
    bids, root = dataset
    (tmp_path / "strangers" / "sub-01" / "func").mkdir(parents=True)
    for folder, word in (("strangers", "named like a real run"), ("nowhere", "no such directory")):
        code, _, errors = call(
            bids, tmp_path / "out", "group", "--synthetic", tmp_path / folder
        )  # fmt: skip
        assert code
        assert word in errors
    code, _, errors = call(bids, tmp_path / "out", "participant", "--synthetic", root / "theirs")
    assert code
    assert "group level" in errors
