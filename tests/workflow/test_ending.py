"""A call ends by saying where its results are and which call comes next."""

from __future__ import annotations

import shlex
from pathlib import Path

from click.testing import CliRunner

from fmrisynth.cli.main import command
from fmrisynth.workflow.ending import next_steps
from fmrisynth.workflow.settings import Settings

DATASET, OUT = Path("a dataset"), Path("out")


def settings(**more):
    return Settings(bids_dir=DATASET, output_dir=OUT, **more)


def suggested(text: str) -> list[str]:
    return shlex.split(text.splitlines()[-1])


def test_after_the_participant_level_comes_the_group_level():
    text = next_steps(settings(n_samples=3), "participant")
    assert str(OUT) in text
    assert suggested(text) == ["fmrisynth", "a dataset", "out", "group"]


def test_after_a_training_come_the_runs():
    words = suggested(next_steps(settings(train_only=True), "participant"))
    assert words[-1] == "participant"
    assert "--train-only" not in words


def test_the_next_call_reads_the_same_runs_and_the_same_model(monkeypatch):
    given = settings(
        tasks=("motor", "wm"), sessions=("1",), space="MNI152NLin6Asym", use_raw=True,
        derivatives={"prep": Path("x y")}, model_dir=Path("m"), work_dir=Path("w"),
    )  # fmt: skip
    read = {}
    monkeypatch.setattr("fmrisynth.cli.main._check", lambda settings, level: None)
    monkeypatch.setattr("fmrisynth.cli.main.start_log", lambda out, verbose: None)
    monkeypatch.setattr("fmrisynth.cli.main._run", lambda s, level: read.update({level: s}))
    result = CliRunner().invoke(command, suggested(next_steps(given, "participant"))[1:])
    assert result.exit_code == 0, result.output
    assert read == {"group": given}


def test_after_the_group_level_the_report_is_named():
    text = next_steps(settings(), "group")
    assert str(OUT / "group.html") in text
    assert str(OUT / "group" / "metrics.tsv") in text
