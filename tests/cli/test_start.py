"""What needs no work is answered at once, and names of options are those of the tables."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import fmrisynth
from fmrisynth.baselines import BASELINES
from fmrisynth.config.model import SAMPLER_NAMES
from fmrisynth.synthesis.sampler import SAMPLERS
from fmrisynth.workflow.words import BASELINE_NAMES, STATISTICS_ONLY

REPOSITORY = Path(fmrisynth.__file__).parents[1]
HEAVY = {"torch", "numpy", "pandas", "nibabel", "nilearn", "bids", "scipy"}


def test_names_are_those_of_the_tables():
    assert (STATISTICS_ONLY, *BASELINES) == BASELINE_NAMES
    assert tuple(SAMPLERS) == SAMPLER_NAMES


def start(*words, cwd):
    """Call the command line in a process of its own: exit code, output, modules, CPU seconds."""
    program = (
        "import sys\n"
        "from fmrisynth.cli.main import main\n"
        "try:\n"
        f"    main({[str(word) for word in words]!r})\n"
        "finally:\n"
        "    print('loaded:', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    output, _, loaded = done.stdout.rpartition("loaded: ")
    return done.returncode, output + done.stderr, set(loaded.split()), seconds


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["nowhere", "out", "participant"], 66),
        (["nowhere", "out", "cohort"], 17),
        (["nowhere", "out", "group", "--preset", "huge"], 64),
        (["nowhere", "out", "group", "--baselines", "magic"], 64),
        (["nowhere", "out", "participant", "--reports-only"], 64),
        (["nowhere", "out", "participant", "--colour"], 64),
    ],
    ids=str,
)
def test_what_needs_no_work_is_answered_at_once(words, code, tmp_path):
    found, output, loaded, seconds = start(*words, cwd=tmp_path)
    assert found == code, output
    assert loaded & HEAVY == set()
    assert seconds < 1  # on an idle machine a fifth of it


@pytest.mark.parametrize("level", ["participant", "group"])
def test_a_wrong_setting_is_refused_at_once(level, tiny_bids, tmp_path):
    words = (tiny_bids, "out", level, "--set", "denoiser.noise=pink")
    found, output, loaded, seconds = start(*words, cwd=tmp_path)
    assert found == 64
    assert "pink" in output
    assert loaded & HEAVY == set()
    assert seconds < 1
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_before_there_is_a_model_loads_only_what_finds_runs(tiny_bids, tmp_path):
    """Namely pybids and nibabel, which take two thirds of its time."""
    found, output, loaded, seconds = start(
        tiny_bids, "out", "participant", "--dry-run", cwd=tmp_path
    )
    assert found == 0
    assert '"will be trained"' in output
    assert loaded & {"torch", "pandas", "nilearn", "sklearn"} == set()
    assert seconds < 3  # a quarter of it on an idle machine
