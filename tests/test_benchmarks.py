"""Each benchmark runs to its end on its smallest settings and prints its numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not run from the repository"),
]


def printed(script: str, *options: str) -> str:
    """Run a script on the CPU; what it prints."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    """What a pattern's only group finds, as numbers."""
    return [float(found) for found in re.findall(pattern, text)]


def test_compression() -> None:
    pytest.importorskip("monai", minversion="1.4")
    text = printed(
        "compression.py", "--presets", "scaled-38m", "--grid", "8", "8", "8", "--repeats", "1"
    )  # fmt: skip
    sizes = numbers(r"(?:ours|monai): ([\d.]+)M parameters", text)
    assert len(sizes) == 4  # two networks, two precisions
    assert max(sizes) == pytest.approx(min(sizes), rel=0.05)
    for kind in ("encode", "decode"):
        ratios = numbers(rf"{kind} ours / monai = ([\d.]+)", text)
        assert len(ratios) == 2
        assert all(ratio > 0 for ratio in ratios)


def test_synthesis() -> None:
    text = printed(
        "synthesis.py", "--shape", "12", "14", "12", "24", "--repeats", "1",
        "--sampling", "euler:2", "ddim:3", "--rounds",
    )  # fmt: skip
    assert "156" not in text
    assert len(numbers(r"ours, \w+, \d steps +([\d.]+) \(", text)) == 2
    assert numbers(r"ours, ddim, 3 steps / ours, euler, 2 steps = ([\d.]+)", text)[0] > 0
    for stage in ("read", "sampler", "decoder", "noise and merge", "write"):
        assert len(numbers(rf"{stage} [\d.]+ s \((\d+)%\)", text)) == 2, stage
    shares = numbers(r" s \((\d+)%\)", text)
    assert sum(shares[:5]) == pytest.approx(100, abs=3)


def test_synthesis_against_fmrisim() -> None:
    pytest.importorskip("brainiak.utils.fmrisim")
    text = printed(
        "synthesis.py", "--shape", "12", "14", "12", "24", "--repeats", "1", "--rounds", "0"
    )  # fmt: skip
    assert numbers(r"fmrisim, 0 rounds / ours, euler, \d+ steps = ([\d.]+)", text)[0] > 0


@pytest.mark.parametrize("preset", ["demo", "small"])
def test_every_row_of_the_ablation_is_a_configuration(
    monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    """Of its own: no two rows are the same, but for what the preset has anyway."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from ablation import rows

    configs = {name: override(PRESETS[preset], settings) for name, settings in rows().items()}
    assert len(set(configs.values())) == len(configs) > 15
    assert configs["hybrid"] == PRESETS[preset]


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
