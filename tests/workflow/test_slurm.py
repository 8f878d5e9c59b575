"""The SLURM scripts run with a stand-in for sbatch that starts each job at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "slurm"

# Runs the job before it answers, as copies of the scripts in a spool folder, as SLURM does; a job
# whose dependency has failed does not run. What a job was submitted with goes to jobs.json.
SBATCH = """\
import json, os, pathlib, re, shutil, subprocess, sys

spool = pathlib.Path(os.environ["SPOOL"])
jobs_file = spool / "jobs.json"
jobs = json.loads(jobs_file.read_text()) if jobs_file.exists() else []
words, options = sys.argv[1:], {}
while words and words[0].startswith("--"):
    name, _, value = words.pop(0)[2:].partition("=")
    options[name] = value
assert set(options) <= {"parsable", "output", "dependency", "array"}, options
number = 100 + len(jobs)
script = spool / f"job{number}"
shutil.copy(words[0], script)
kind, _, before = options.get("dependency", "").partition(":")
assert kind in ("", "afterok"), kind
ready = not before or {job["id"]: job for job in jobs}[before]["state"] == "COMPLETED"
first, last = re.match(r"(\\d+)-(\\d+)", options.get("array", "0-0")).groups()
codes = []
for task in range(int(first), int(last) + 1) if ready else ():
    more = {"SLURM_JOB_ID": str(number), "SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS": "1"}
    if "array" in options:
        more["SLURM_ARRAY_TASK_ID"] = str(task)
    log = re.sub("%[jA]", str(number), options["output"]).replace("%a", str(task))
    with open(log, "w") as stream:
        done = subprocess.run(
            ["bash", script, *words[1:]], env={**os.environ, **more}, stdout=stream, stderr=stream
        )
    codes.append(done.returncode)
state = "COMPLETED" if ready and not any(codes) else "FAILED" if ready else "NEVER"
jobs.append({"id": str(number), "script": pathlib.Path(words[0]).name, "state": state, **options})
jobs_file.write_text(json.dumps(jobs))
print(f"{number};cluster")
"""

APP = """\
import json, os, sys
with open(os.environ["CALLS"], "a") as stream:
    stream.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
sys.exit(3 if os.environ.get("FAIL") in sys.argv else 0)
"""

Submit = Callable[..., tuple[subprocess.CompletedProcess[str], list[Any], list[Any]]]


def make_command(folder: Path, name: str, source: str) -> None:
    """Put a Python program on the PATH of the test."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    """Run submit.sh on two participants: its result, the jobs, and the calls of the program."""
    bids, spool = tmp_path / "my data", tmp_path / "spool"
    for label in ("02", "01"):
        (bids / f"sub-{label}").mkdir(parents=True)
    (bids / "sourcedata").mkdir()
    spool.mkdir()
    make_command(tmp_path / "bin", "sbatch", SBATCH)
    for name in ("fmrisynth", "apptainer"):
        make_command(tmp_path / "bin", name, APP)

    def run(
        labels: Sequence[str] = (), **environment: str
    ) -> tuple[subprocess.CompletedProcess[str], list[Any], list[Any]]:
        calls = tmp_path / "calls"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CUDA"))}
        result = subprocess.run(
            [SCRIPTS / "submit.sh", "my data", "out", "work", *labels],
            cwd=tmp_path,
            env={
                **inherited,
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "SPOOL": str(spool),
                "CALLS": str(calls),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        jobs = json.loads((spool / "jobs.json").read_text())
        return result, jobs, [json.loads(line) for line in calls.read_text().splitlines()]

    return run


def test_trains_once_generates_each_participant_and_groups_last(
    submit: Submit, tmp_path: Path
) -> None:
    result, jobs, calls = submit(TRAIN_OPTIONS="--max-time 11:30:00", GENERATE_OPTIONS="-v")
    assert result.returncode == 0, result.stderr
    assert [job["script"] for job in jobs] == ["train.sh", "generate.sh", "group.sh"]
    assert [job["state"] for job in jobs] == ["COMPLETED"] * 3
    assert jobs[1]["array"] == "1-2%20"
    common = ["fmrisynth", str(tmp_path / "my data"), str(tmp_path / "out")]
    work = ["--work-dir", str(tmp_path / "work")]
    model = ["--model", str(tmp_path / "out" / "model")]
    participant = [*common, "participant"]
    assert calls == [
        [*participant, "--train-only", "--max-time", "11:30:00", *work],
        [*participant, "--participant-label", "01", *model, "-v", *work],
        [*participant, "--participant-label", "02", *model, "-v", *work],
        [*common, "group", *work],
    ]


def test_only_the_labels_asked_for_are_generated(submit: Submit) -> None:
    _, jobs, calls = submit(["sub-02"])
    assert jobs[1]["array"] == "1-1%20"
    assert [call[5] for call in calls if "--participant-label" in call] == ["02"]


def test_nothing_is_generated_when_the_training_fails(submit: Submit) -> None:
    result, jobs, calls = submit(FAIL="--train-only")
    assert result.returncode == 0  # the submission itself went well
    assert [job["state"] for job in jobs] == ["FAILED", "NEVER", "NEVER"]
    assert len(calls) == 1


def test_no_report_when_a_participant_fails(submit: Submit) -> None:
    _, jobs, calls = submit(FAIL="01")
    assert [job["state"] for job in jobs] == ["COMPLETED", "FAILED", "NEVER"]
    assert len(calls) == 3  # the other participant is not lost


@pytest.mark.parametrize(("devices", "nv"), [("0", ["--nv"]), ("", [])])
def test_image_sees_the_same_paths_and_the_input_read_only(
    submit: Submit, tmp_path: Path, devices: str, nv: list[str]
) -> None:
    image = str(tmp_path / "fmrisynth.sif")
    _, _, calls = submit(FMRISYNTH_SIF=image, CUDA_VISIBLE_DEVICES=devices)
    assert {call[0] for call in calls} == {"apptainer"}
    bids, out, work = (str(tmp_path / name) for name in ("my data", "out", "work"))
    options = ["--cleanenv", "--env", "SLURM_CPUS_PER_TASK=1", *nv]
    binds = ["-B", f"{bids}:{bids}:ro", "-B", f"{out}:{out}", "-B", f"{work}:{work}"]
    arguments = [image, bids, out, "group", "--work-dir", work]
    assert calls[-1] == ["apptainer", "run", *options, *binds, *arguments]


def test_without_arguments_it_says_how_it_is_called() -> None:
    result = subprocess.run([SCRIPTS / "submit.sh"], capture_output=True, text=True, check=False)
    assert result.returncode == 64
    assert "submit.sh BIDS_DIR OUTPUT_DIR WORK_DIR" in result.stderr
    assert "set -euo" not in result.stderr
