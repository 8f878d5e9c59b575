"""Each benchmark runs to its end on its smallest settings and prints its numbers."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fmrisynth.bids.search import find_runs
from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS, SYSTEMS
from fmrisynth.model.noise.modal import ModalNoise

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not run from the repository"),
]


def printed(script: str, *options: str) -> str:
    """Run a script on the CPU; what it prints."""
    path = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    """What a pattern's only group finds, as numbers."""
    return [float(found) for found in re.findall(pattern, text)]


def table(text: str, *start: str) -> list[list[str]]:
    """Cells of the rows of Markdown tables that start with some cells; those are left out."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [cells[len(start) :] for cells in lines if tuple(cells[: len(start)]) == start]


def ratio(cell: str) -> float:
    """Ratio of a cell, which lies within its interval."""
    middle, low, high = (float(n) for n in re.findall(r"[\d.]+(?:e[+-]\d+)?", cell))
    assert 0 < low <= middle <= high
    return middle


@pytest.mark.usefixtures("monai")
def test_step() -> None:
    text = printed("step.py", "--presets", "scaled-38m", "demo", "--grid", "4", "--repeats", "2")
    for preset, agreement in (("scaled-38m", 0.02), ("demo", 0.15)):
        found = table(text, preset)
        assert [cells[1] for cells in found[-2:]] == ["denoise", "train"]
        for cells in found[-2:]:
            ours, theirs = map(float, cells[0].split(" / "))
            assert ours == pytest.approx(theirs, rel=agreement)
            ratio(cells[-1])
            ratio(cells[-2])


@pytest.mark.usefixtures("monai")
def test_autoencoder() -> None:
    text = printed(
        "autoencoder.py", "--presets", "scaled-38m", "--grid", "8", "8", "8", "--repeats", "2"
    )  # fmt: skip
    found = table(text, "scaled-38m")[-4:]
    assert [cells[1:3] for cells in found] == [
        [precision, call] for precision in ("32", "bf16") for call in ("encode", "decode")
    ]
    for cells in found:
        ours, theirs = map(float, cells[0].split(" / "))
        assert ours == pytest.approx(theirs, rel=0.05)
        assert ratio(cells[-2]) > 0


def test_synthesis() -> None:
    text = printed(
        "synthesis.py", "--shape", "12", "14", "12", "24", "--repeats", "2",
        "--sampling", "euler:2", "ddim:3", "--rounds",
    )  # fmt: skip
    assert "12 × 14 × 12 × 24" in text
    euler, ddim = "fmrisynth, euler, 2 steps", "fmrisynth, ddim, 3 steps"
    assert ratio(table(text, f"{ddim} / {euler}")[0][0]) > 0
    for label in (euler, ddim):
        (seconds, *_), shares = table(text, label)
        assert float(seconds.split()[0]) > 0
        of_stages = [float(n) for n in re.findall(r"\((\d+)%\)", " ".join(shares))]
        assert len(of_stages) == 8
        assert sum(of_stages) == pytest.approx(100, abs=4)


def test_synthesis_against_fmrisim() -> None:
    pytest.importorskip("brainiak.utils.fmrisim")
    text = printed(
        "synthesis.py", "--shape", "12", "14", "12", "24", "--repeats", "2", "--rounds", "0"
    )  # fmt: skip
    (cells,) = table(text, "fmrisim, 0 rounds / fmrisynth, euler, 6 steps")
    assert ratio(cells[0]) > 0


def test_cores() -> None:
    text = printed(
        "cores.py", "--shape", "12", "14", "12", "24", "--runs", "1", "--repeats", "1"
    )  # fmt: skip
    for work in ("reading", "writing"):
        assert float(table(text, work)[0][2]) > 0


@pytest.mark.parametrize("preset", ["demo", "small"])
@pytest.mark.parametrize("script", ["ablation", "backbone_alone"])
def test_every_row_is_a_configuration(
    monkeypatch: pytest.MonkeyPatch, preset: str, script: str
) -> None:
    """Of its own: no two rows are the same."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    rows = importlib.import_module(script).rows()
    configs = {name: override(PRESETS[preset], settings) for name, settings in rows.items()}
    assert len(set(configs.values())) == len(configs) >= 10
    if script == "ablation":
        assert configs["full"] == PRESETS[preset]
        assert all(name in configs for name in SYSTEMS)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fmrisynth.phantom import PhantomConfig, simulate_cohort

    root = tmp_path_factory.mktemp("cohort") / "phantom"
    config = PhantomConfig(5, 40, voxel_size=14.0, tsnr=300.0, tasks=("MOTOR", "WM"))
    simulate_cohort(root, config, progress=False)
    return root


SMALLEST = (
    "preprocess.voxel_size=14", "autoencoder.patch=2", "denoiser.backbone.widths=[32,64]",
    "denoiser.backbone.blocks=[1,1]", "denoiser.noise_modes=4", "sampling.steps=2",
    "diffusion_training.batch_size=4",
)  # fmt: skip
SET = [word for item in SMALLEST for word in ("--set", item)]


def cells(text: str, row: str) -> list[str]:
    """What stands in the last row of this name, after the name."""
    found = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", text, re.MULTILINE)
    return found[-1].split(" | ")


def test_ablation(cohort: Path, tmp_path: Path) -> None:
    words = [
        str(cohort), str(tmp_path), "--seeds", "0", "1", "--steps", "4",
        "--only", "full", "less backbone", "--skill-only", *SET,
    ]  # fmt: skip
    text = printed("ablation.py", *words)
    assert "seed 1, less backbone" in text
    gain, paired, of_all, *_ = cells(text, "less backbone")
    assert all("±" in cell for cell in (gain, paired, of_all))  # over two seeds
    difference = float(cells(text, "full")[2].split()[0]) - float(of_all.split()[0])
    assert float(paired.split()[0]) == pytest.approx(difference, abs=0.02)
    again = printed("ablation.py", *words)
    assert cells(again, "full") == cells(text, "full")
    assert "seed 0" not in again  # nothing is trained twice


def test_backbone_alone(cohort: Path, tmp_path: Path) -> None:
    text = printed(
        "backbone_alone.py", str(cohort), str(tmp_path), "--seeds", "0", "--steps", "4",
        "--only", "hybrid", "hybrid, plain", *SET,
        "--set", "diffusion_training.gate=false",  # which these few steps would not open
    )  # fmt: skip
    assert float(cells(text, "training participants' GLM")[1]) > 0.3  # Corr of the reference
    for row in ("hybrid", "hybrid, plain"):
        share, corr = (float(cell) for cell in cells(text, row)[:2])
        limit = float(cells(text, "training participants' GLM")[1])
        assert share == pytest.approx(corr / limit, abs=0.01)


@pytest.mark.usefixtures("monai")
def test_time_to_quality(cohort: Path, tmp_path: Path) -> None:
    text = printed(
        "time_to_quality.py", str(cohort), str(tmp_path), "--steps", "2", "3", "--share", "-2",
        "--ratio", "0.2", "0.4", *SET, "--set", "denoiser.backbone.widths=[64,128]",
    )  # fmt: skip
    assert "recipe, 2 steps" in text
    assert "recipe, 3 steps" not in text  # the first is enough
    assert numbers(r"MONAI's time / the recipe's: more than 0.0, at most ([\d.]+)", text)[0] > 0
    assert text.count("MONAI plainly, ") == 2  # the second budget is not needed
    text = printed(
        "time_to_quality.py", str(cohort), str(tmp_path), "--steps", "2", "--share", "2",
        *SET, "--set", "denoiser.backbone.widths=[64,128]",
    )  # fmt: skip
    assert "2.0 of it is not reached in 2 steps" in text


def test_memory() -> None:
    text = printed(
        "memory.py", "--grid", "4", "--presets", "demo", "small", "--accumulate", "1",
        "--limits", "0.1", "24",
    )  # fmt: skip
    peaks = numbers(r"peak ([\d.]+) GiB", text)
    assert len(peaks) == 2
    assert peaks[0] < peaks[1] < 4
    assert numbers(r"trend: [\d.]+ GiB \+ ([\d.]+) bytes a parameter", text)[0] > 4
    assert "largest of these within 0.1 GiB: none" in text
    assert "largest of these within 24 GiB: small (measured)" in text


def test_memory_says_what_it_cannot_run() -> None:
    """A size for which no machine has memory is not tried."""
    text = printed(
        "memory.py", "--grid", "4", "--presets", "small", "demo", "--accumulate", "1",
        "--set", "denoiser.backbone.widths=[64000,128000]",
    )  # fmt: skip
    assert text.count("not run") == 2
    assert "peak" not in text


def test_realism(tmp_path: Path) -> None:
    from fmrisynth.phantom import PhantomConfig, simulate_cohort

    for realism in ("full", "gaussian"):
        config = PhantomConfig(2, 40, voxel_size=14.0, tsnr=200.0, tasks=("WM",), realism=realism)
        simulate_cohort(tmp_path / realism, config, progress=False)
    text = printed("realism.py", str(tmp_path / "full"), str(tmp_path / "gaussian"))
    assert "| runs | 4 | 4 |" in text
    (full, gaussian), *_ = re.findall(r"\| common \| ([\d.]+) .*?\| ([\d.]+) ", text)
    assert float(full) > float(gaussian)
    assert len(numbers(r"(\d+)% within", text)) == 8


@pytest.mark.parametrize("amplitude", [1.0, 2.0])
def test_left_to_learn_is_the_gain_of_a_known_covariance(
    monkeypatch: pytest.MonkeyPatch, amplitude: float
) -> None:
    """White noise of r times the model's variance: c² s² (1 − r)² / (c² r + s²)."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("left_to_learn")
    mask = torch.ones(4, 5, 4, dtype=torch.bool)

    def white(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(400, 1, *mask.shape, generator=generator)

    noise = ModalNoise(1, mask, 8, 0, order=2, frames=8)
    noise.fit([white(seed) for seed in range(4)], np.zeros((400, 0)))
    people = []
    for seed in (10, 11):
        person = script.Participant(8)
        for run in range(4):
            person.add(amplitude * white(10 * seed + run)[..., mask].flatten(1), noise)
        people.append(person)
    angle, r = 0.6, amplitude**2
    cos, sin = np.cos(angle) ** 2, np.sin(angle) ** 2
    expected = cos * sin * (1 - r) ** 2 / (cos * r + sin)
    gain = people[0].gain(script.best([people[1]], angle), angle, int(mask.sum()))
    assert float(gain.sum()) == pytest.approx(expected, rel=0.1, abs=0.01)
    # frames of 72 values tell their level by chance, which is taken off
    assert abs(people[0].frame_gain(angle)) < 0.01


def test_surprise_is_that_of_a_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Courses of variance r, under covariances of 1 and of r: r / 2, and (log r + 1) / 2."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("noise_likelihood")
    r, white = 3.0, torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    courses, unit = r**0.5 * white, torch.eye(6, dtype=torch.float64)
    for count in (2, 6, 64):
        assert script.surprise(courses, unit, count) == pytest.approx(r / 2, rel=0.05)
        expected = (np.log(r) + 1) / 2
        assert script.surprise(courses, r * unit, count) == pytest.approx(expected, rel=0.05)


def test_sites_puts_first_what_leaving_a_site_out_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls themselves, eighteen of them, are too long for a test."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sites = importlib.import_module("sites")

    def row(in_site: list[bool | None], left_out: list[bool | None]) -> dict[str, list[object]]:
        made = {name: [sites.Judged(1.0, None)] for name in sites.SOURCES}
        made["fmrisynth"] = [sites.Judged(0.5, passed) for passed in in_site]
        made["left-out"] = [sites.Judged(0.25, passed) for passed in left_out]
        return made

    text = sites.table(
        {
            "kept": row([True, True], [True, True]),
            "mended": row([False, False], [True, False]),
            "broken": row([True, True, None], [False, False, True]),
        }
    )
    names = re.findall(r"^\| (\w+) \|", text, re.MULTILINE)
    assert names == ["rule", "broken", "kept", "mended"]
    assert "| broken | 0.5 (2/2) | n/a | 0.25 (1/3) | n/a | n/a |" in text
    assert "| rules met | 4 of 6 | 0 of 0 | 4 of 7 | 0 of 0 | 0 of 0 |" in text


def test_false_positives(
    tiny_bids: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of the noise finds nothing in noise that it is a model of; without one it does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("false_positives")
    rng, (run, *_) = np.random.default_rng(0), find_runs(tiny_bids).runs
    design = script.random_design(replace(run, n_volumes=300), rng)
    noise = script.autoregressive(np.full(1000, 0.6), 300, rng)
    assert script.share_found(noise, design, "ar1") == pytest.approx(0.05, abs=0.03)
    assert script.share_found(noise, design, "ols") > 0.15
    same = script.random_phases(noise, rng)
    assert script.autocorrelation(same, 1).mean() == pytest.approx(0.6, abs=0.02)
    script.main([str(tiny_bids), "--designs", "2", "--voxels", "40"])
    ((_, n_runs, *cells),) = re.findall(r"\| (bids\S*) \| (\d+) \|(.*)\|", capsys.readouterr().out)
    assert int(n_runs) == len(find_runs(tiny_bids).runs)
    assert len(cells[0].split("|")) == len(script.COLUMNS)
