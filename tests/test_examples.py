"""The how-tos of examples/ run on a small simulated cohort, and find what is in it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

import fmrisynth

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TASK, TRIAL_TYPE = "MOTOR", "lh"
PHANTOM = (
    *("--n-participants", "7", "-t", TASK, "--voxel-size", "10", "--n-volumes", "48"),
    *("--tsnr", "300", "--nprocs", "1", "--quiet"),
)
SMALL = (
    "preprocess.voxel_size=10",
    "denoiser.backbone.widths=[8, 16]",
    "denoiser.backbone.blocks=[1, 1]",
    "denoiser.backbone.head_width=8",
    "diffusion_steps=2",
    "sampling.steps=2",
)


def call(*words: object) -> None:
    environment = dict(
        os.environ, PYTHONPATH=str(Path(fmrisynth.__file__).parents[1]), OMP_NUM_THREADS="1"
    )
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset `ds` and what the first example makes of it in `out`."""
    root = tmp_path_factory.mktemp("examples")
    call("-m", "fmrisynth.phantom", root / "ds", *PHANTOM)
    call(EXAMPLES / "first_run.py", root / "ds", root / "out", root / "first_run.png", *SMALL)
    return root


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_the_first_run_is_synthetic_and_has_its_picture(study):
    images = sorted((study / "out").rglob("*_desc-synth_bold.nii.gz"))
    assert len(images) == 4  # two participants, two phase encodings
    assert np.ptp(nib.load(images[0]).get_fdata(), axis=-1).max() > 0
    assert is_picture(study / "first_run.png")


@pytest.mark.usefixtures("restored_process")
def test_power_rises_with_participants(study, tmp_path):
    power = example("power").main(
        study / "ds", study / "out" / "model", tmp_path / "out", TASK, TRIAL_TYPE,
        tmp_path / "power.png", draws=2,
    )  # fmt: skip
    assert set(power) == {1, 2}
    for by_n in power.values():
        assert list(by_n) == list(range(3, 8))  # half of 7 participants with two draws each
        assert by_n[7] >= by_n[3]
    assert is_picture(tmp_path / "power.png")


@pytest.mark.usefixtures("restored_process")
def test_a_decoder_of_the_planted_responses_is_above_chance(study, tmp_path):
    accuracy = example("augmentation").main(
        study / "ds", study / "out" / "model", tmp_path / "out", TASK, tmp_path / "a.png", samples=1
    )
    assert set(accuracy) == {"real", "synthetic", "both"}
    assert accuracy["real"][0] > 0.4  # chance is a fifth
    assert all(0 <= share <= 1 for share, _ in accuracy.values())
    assert is_picture(tmp_path / "a.png")


@pytest.mark.usefixtures("restored_process")
def test_the_glm_finds_the_planted_effect_at_its_size(study, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(fmrisynth.__file__).parents[1]))
    table = example("known_effect").main(
        study / "ds", study / "out" / "model", tmp_path / "out", TASK, TRIAL_TYPE,
        tmp_path / "known.png",
        ("--participant-label", "01", "--individuals", "group", "--nprocs", "1"),
    )  # fmt: skip
    assert table.shape == (2, 3)
    np.testing.assert_allclose(table[:, 1], table[:, 0], rtol=0.03)
    assert is_picture(tmp_path / "known.png")


@pytest.mark.usefixtures("restored_process")
def test_two_generators_stand_beside_real_data(study, tmp_path):
    table = example("compare_generators").main(
        study / "ds", study / "out" / "model", tmp_path / "out", tmp_path / "compared.png"
    )
    assert {"model", "statistics", "real"} == set(table["generator"])
    assert np.isfinite(table.loc[table["metric"] == "corr", "value"]).all()
    assert is_picture(tmp_path / "compared.png")
