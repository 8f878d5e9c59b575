"""Names that options take: those that exist, and no more is loaded to read them."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

import fmrisynth
from fmrisynth.baselines import BASELINES
from fmrisynth.choices import BASELINE_NAMES, PRESET_NAMES, SAMPLER_NAMES
from fmrisynth.cli.parsing import baselines
from fmrisynth.config.presets import PRESETS
from fmrisynth.synthesis.sampler import SAMPLERS

REPOSITORY = Path(fmrisynth.__file__).parents[1]


def read(*words):
    return baselines(None, None, words)


def test_names_are_those_of_the_tables():
    assert tuple(BASELINES) == BASELINE_NAMES
    assert tuple(PRESETS) == PRESET_NAMES
    assert tuple(SAMPLERS) == SAMPLER_NAMES


def test_names_of_baselines():
    assert read("group-glm") == ("group-glm",)
    assert read("none") == ()
    assert read("fmrisim", "group-glm", "fmrisim") == ("fmrisim", "group-glm")


def test_names_that_do_not_exist_list_those_that_do():
    with pytest.raises(click.BadParameter) as caught:
        read("group_glm")
    for name in (*BASELINES, "none", "group_glm"):
        assert name in str(caught.value)


def test_none_stands_alone():
    with pytest.raises(click.BadParameter, match="stands alone"):
        read("none", "group-glm")


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
    ],
)
def test_what_needs_no_work_is_answered_without_loading_what_works(words, code, tmp_path):
    program = (
        "import sys\n"
        "from fmrisynth.cli.main import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "finally:\n"
        "    heavy = {'torch', 'nilearn', 'nibabel', 'pandas', 'scipy'} & set(sys.modules)\n"
        "    print('loaded:', *sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY)),
    )
    assert done.returncode == code, done.stderr
    assert done.stdout.rstrip().endswith("loaded:")
