"""`--events` synthesises runs with another design than the measured one."""

import json

import nibabel as nib
import numpy as np
import pytest
from support.command_line import parse
from support.tiny_model import make_model

from fmrisynth.bids.redesign import with_events
from fmrisynth.bids.search import find_runs
from fmrisynth.errors import DataError, NoInputError, NoMatchError, UsageError

THREE = ("in", "out", "participant")
DESIGN = "onset\tduration\ttrial_type\n4\t8\tfoot\n24\t8\tfoot\n"


@pytest.fixture
def design(tmp_path):
    path = tmp_path / "design.tsv"
    path.write_text(DESIGN)
    return path


@pytest.fixture
def write(call, tiny_bids, tmp_path):
    """Write runs of sub-01 with a ready model; what was printed, or the messages."""
    make_model().save(tmp_path / "model")

    def run(*words, code=0):
        found, out, err = call(
            tiny_bids, tmp_path / "out", "participant", "--participant-label", "01",
            "--model", tmp_path / "model", "--sampling-steps", 2, "--device", "cpu",
            "--precision", "32-true", *words,
        )  # fmt: skip
        assert found == code, err
        return out or err

    return run


def image(out, task="motor"):
    return nib.load(next(out.rglob(f"sub-01_task-{task}*synth_bold.nii.gz"))).get_fdata()


def test_words_are_read_as_tasks_and_files():
    assert {k: str(v) for k, v in parse(*THREE, "--events", "a.tsv")["events"].items()} == {
        "": "a.tsv"
    }
    found = parse(*THREE, "--events", "motor=a.tsv", "task-wm=x=y.tsv")["events"]
    assert {k: str(v) for k, v in found.items()} == {"motor": "a.tsv", "wm=x": "y.tsv"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.tsv", "b.tsv"), "second table for every task"),
        (("motor=a.tsv", "task-motor=b.tsv"), "second table for the task motor"),
        (("a.tsv", "wm=b.tsv"), "which task 'a.tsv' is for"),
    ],
)
def test_tables_that_contradict_each_other(call, tmp_path, words, message):
    code, _, err = call(tmp_path, tmp_path / "out", "participant", "--events", *words)
    assert code == 64
    assert message in " ".join(err.split())


def test_runs_get_the_design_and_others_keep_their_own(tiny_bids, design):
    runs = find_runs(tiny_bids).runs
    changed = with_events(runs, {"motor": design}, tiny_bids)
    assert {run.task for run in changed if run.events == design.resolve()} == {"motor"}
    assert [run.events for run in changed if run.task == "wm"] == [
        run.events for run in runs if run.task == "wm"
    ]
    motor = [run for run in runs if run.task == "motor"]
    for run in with_events(motor, {"": design}, tiny_bids):
        assert run.events == design.resolve()


def test_designs_that_cannot_be_followed(tiny_bids, design, tmp_path):
    runs = find_runs(tiny_bids).runs
    with pytest.raises(UsageError, match=r"tasks motor, wm; say whose.*--events motor="):
        with_events(runs, {"": design}, tiny_bids)
    with pytest.raises(NoMatchError, match=r"task rest.*motor, wm"):
        with_events(runs, {"rest": design}, tiny_bids)
    with pytest.raises(NoInputError, match="no such file"):
        with_events(runs, {"motor": tmp_path / "none.tsv"}, tiny_bids)
    design.write_text(DESIGN + "400\t8\tfoot\n")
    with pytest.raises(DataError, match="beyond the end of the run"):
        with_events(runs, {"motor": design}, tiny_bids)


def test_a_design_is_written_and_followed(write, design, tmp_path):
    out = tmp_path / "out"
    write("-t", "motor")
    own = image(out)
    write("-t", "motor", "--events", design)  # the same model and seed, other events
    made = image(out)
    assert next(out.rglob("*motor_events.tsv")).read_text() == DESIGN
    assert made.shape == own.shape
    assert not np.allclose(made, own, rtol=1e-3)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*bold.nii.gz")}
    assert "left as they are" in write("-t", "motor", "--events", f"motor={design}")
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*bold.nii.gz")} == before
    write("-t", "motor")
    assert np.array_equal(image(out), own)


def test_trial_types_that_were_not_learned_stop_before_a_run_is_written(write, design, tmp_path):
    design.write_text(DESIGN.replace("foot", "tongue"))
    message = write("--events", f"motor={design}", code=65)
    assert "'tongue'" in message
    assert "foot, hand" in message
    assert not list((tmp_path / "out").rglob("*_bold.nii.gz"))


def test_a_dry_run_reads_the_design(write, design, tmp_path):
    said = json.loads(write("--events", f"wm={design}", "--dry-run"))
    assert str(design.resolve()) in json.dumps(said["reads"])
    assert not (tmp_path / "out").exists()
