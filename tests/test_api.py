"""Tests of the public interface: its names, its light import, and the documented examples."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from support.bids_tree import make_bids

import fmrisynth

REPOSITORY = Path(__file__).resolve().parents[1]
NAMES = {"Model", "__version__", "evaluate", "find_runs", "synthesise", "train"}


def test_public_names_are_these():
    assert set(fmrisynth.__all__) == NAMES
    assert set(dir(fmrisynth)) >= NAMES
    for name in NAMES:
        assert getattr(fmrisynth, name) is not None
    namespace: dict[str, object] = {}
    exec("from fmrisynth import *", namespace)
    assert namespace.keys() >= NAMES


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'synthesize'"):
        getattr(fmrisynth, "synthesize")  # noqa: B009


@pytest.mark.parametrize(
    ("use", "heavy"),
    [("", "numpy"), ("find_runs", "torch"), ("evaluate", "torch")],
)
def test_importing_is_light(use, heavy):
    code = f"import sys, fmrisynth; {f'fmrisynth.{use}' if use else 'pass'}"
    subprocess.run(
        [sys.executable, "-c", f"{code}; assert {heavy!r} not in sys.modules"],
        check=True,
        cwd=REPOSITORY,
    )


def examples() -> str:
    """Collect the Python code of docs/reference/api.md, each block on its lines."""
    text = (REPOSITORY / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    code = [""] * len(text.splitlines())
    for block in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        first = text[: block.start(1)].count("\n")
        for offset, line in enumerate(block[1].splitlines()):
            code[first + offset] = line
    return "\n".join(code)


@pytest.mark.slow
@pytest.mark.usefixtures("restored_process")
def test_the_documented_examples_run(tmp_path, monkeypatch):
    make_bids(tmp_path / "bids", n_volumes=24)
    make_bids(tmp_path / "others", n_volumes=24, seed=1)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(compile(examples(), "docs/reference/api.md", "exec"), namespace)
    assert {run.participant for run in namespace["motor"].runs} == {"01", "02"}
    held_out = namespace["held_out"]
    assert [run.label for run in namespace["synthetic"]] == [run.label for run in held_out]
    table = pd.read_csv("metrics.tsv", sep="\t")
    assert len(table) > 10
    assert set(namespace["result"].generators) == {"others", "fmrisynth"}
    redesigned = sorted(Path("redesigned").rglob("*_events.tsv"))
    assert [path.read_bytes() for path in redesigned] == [Path("design.tsv").read_bytes()]
