"""The command line: what it takes, what it says, and its exit codes."""

import json
import shutil
from pathlib import Path

import click
import nibabel as nib
import numpy as np
import pytest
import torch
from support.command_line import parse

from fmrisynth import __version__

# Parsing

THREE = ("in", "out", "participant")


@pytest.mark.parametrize(
    "words",
    [
        (*THREE, "--participant-label", "01", "02"),
        (*THREE, "--participant_label", "01", "02"),
        (*THREE, "--participant-label", "01", "--participant-label", "02"),
        (*THREE, "--participant-label", "01", "02", "--random-seed", "4"),
        (*THREE, "-w", "work", "--participant-label", "01", "02"),
        (*THREE, "--train-only", "--participant-label", "01", "02"),
        ("-v", *THREE, "--participant-label", "01", "02"),
        ("--train-only", *THREE, "--participant-label", "01", "02"),
        ("--random-seed", "4", *THREE, "--participant-label", "01", "02"),
        ("--random-seed=4", *THREE, "--participant-label", "01", "02"),
        ("in", "--skip-bad-runs", "out", "participant", "--participant-label", "01", "02"),
        ("--participant-label", "01", "--participant-label", "02", *THREE),
        ("--participant-label", "01", "02", "--nprocs", "1", *THREE),
        ("--participant-label", "01", "02", "--train-only", *THREE),
        ("--participant-label", "01", "02", "--", *THREE),
        (*THREE, "--random_seed=4", "--participant_label", "01", "02", "--work_dir", "work"),
    ],
    ids=" ".join,
)
def test_lists_of_labels(words):
    found = parse(*words)
    assert found["participants"] == ("01", "02")
    assert found["analysis_level"] == "participant"
    assert (str(found["bids_dir"]), str(found["output_dir"])) == ("in", "out")


def test_one_label_before_the_arguments():
    assert parse("--participant-label", "01", *THREE)["participants"] == ("01",)
    assert parse("-t", "motor", "--session-id", "a", *THREE)["tasks"] == ("motor",)


def test_every_list_option_takes_several_words():
    found = parse(*THREE, "--session-label", "a", "b", "-t", "x", "y", "-d", "prep=p", "q/fmriprep")
    assert found["sessions"] == ("a", "b")
    assert found["tasks"] == ("x", "y")
    assert {k: str(v) for k, v in found["derivatives"].items()} == {
        "prep": "p",
        "fmriprep": "q/fmriprep",
    }


def test_two_derivatives_of_one_name_are_both_read():
    """As in --derivatives siteA/fmriprep siteB/fmriprep."""
    found = parse(*THREE, "-d", "a/fmriprep", "b/fmriprep")
    assert sorted(str(path) for path in found["derivatives"].values()) == [
        "a/fmriprep",
        "b/fmriprep",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("01:30:00", 5400), ("00:10:00", 600), ("10:05", 605), ("90", 90), ("100:00:01", 360001)],
)
def test_times(text, seconds):
    assert parse(*THREE, "--max-time", text)["max_seconds"] == seconds


@pytest.mark.parametrize("text", ["", "0", "00:00:00", "1h", "1:2:3:4", "-5", "1.5", "aa:bb:cc"])
def test_wrong_times(text):
    with pytest.raises(click.UsageError):
        parse(*THREE, f"--max-time={text}")


@pytest.mark.parametrize(
    ("text", "gigabytes"),
    [
        ("16", 16),
        ("1.5", 1.5),
        ("16G", 16),
        ("16gb", 16),
        ("800M", 0.8),
        ("2T", 2000),
        ("4 GiB", 4),
    ],
)
def test_memory(text, gigabytes):
    assert parse(*THREE, "--mem", text)["memory"] == pytest.approx(gigabytes)
    assert parse(*THREE, "--mem_gb", text)["memory"] == pytest.approx(gigabytes)


@pytest.mark.parametrize("text", ["", "0", "-4", "4P", "four", "16000", "0M"])
def test_no_amount_of_memory(text):
    with pytest.raises(click.UsageError):
        parse(*THREE, f"--mem={text}")


def test_names_of_other_apps_are_understood():
    """As in scripts that were written for fMRIPrep and its kin."""
    found = parse(
        *THREE, "--n_cpus", 3, "--omp_nthreads", 2, "--skip_bids_validation", "--notrack",
        "--work_dir", "w", "--bids_database_dir", "db", "--task_id", "task-a", "--session_label",
        "x", "--random_seed", 8, "-vv",
    )  # fmt: skip
    assert (found["nprocs"], found["omp_nthreads"], found["seed"]) == (3, 2, 8)
    assert found["skip_validation"]
    assert found["notrack"]
    assert str(found["database_dir"]) == "db"
    assert (found["sessions"], found["verbose"]) == (("x",), 2)


def test_a_value_that_looks_like_an_option_stays_as_it_is():
    assert parse(*THREE, "--", *())["analysis_level"] == "participant"
    assert parse(*THREE, "--set", "a_b=--work_dir")["assignments"] == {"a_b": "--work_dir"}


def test_settings_are_pairs():
    assert parse(*THREE, "--set", "a.b=1=2")["assignments"] == {"a.b": "1=2"}
    with pytest.raises(click.BadParameter, match="NAME=VALUE"):
        parse(*THREE, "--set", "a.b")


def test_help(call):
    for flag in ("--help", "-h"):
        code, out, _ = call(flag)
        assert code == 0
        for word in ("BIDS_DIR", "OUTPUT_DIR", "participant", "group"):
            assert word in out


def test_version(call):
    code, out, _ = call("--version")
    assert code == 0
    assert out.strip().endswith(__version__)


# Exit codes


def test_unknown_level(call, tiny_bids, tmp_path):
    code, _, err = call(tiny_bids, tmp_path / "out", "session")
    assert code == 17
    assert "'session'" in err
    assert "participant or group" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("in",),
        (*THREE, "more"),
        (*THREE, "--colour"),
        (*THREE, "--n-samples", "0"),
        (*THREE, "--max-steps", "many"),
        (*THREE, "--max-time", "soon"),
        (*THREE, "--guidance", "-1"),
        (*THREE, "--sampler", "magic"),
        (*THREE, "--preset", "huge"),
        (*THREE, "--device", "abacus"),
        (*THREE, "--set", "a"),
        (*THREE, "--mem", "much"),
        (*THREE, "--mem", "0"),
        (*THREE, "--mem", "16000"),
        (*THREE, "--omp-nthreads", "0"),
        (*THREE, "--output-layout", "flat"),
        (*THREE, "--baselines", "magic"),
        (*THREE, "--baselines", "none", "group-glm"),
        (*THREE, "--reports-only"),
        (*THREE, "--config-file", "nowhere.toml"),
        (*THREE, "--bids-filter-file", "nowhere.json"),
    ],
    ids=lambda w: " ".join(w) or "nothing",
)
def test_usage(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*words)
    assert code == 64
    assert err.strip()
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_are_usage(call, tiny_bids, tmp_path):
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "--set", "colour=red")
    assert code == 64
    assert "'colour'" in err
    assert "denoiser" in err


def test_no_such_directory(call, tmp_path):
    code, _, err = call(tmp_path / "nowhere", tmp_path / "out", "participant")
    assert code == 66
    assert str(tmp_path / "nowhere") in err
    assert not (tmp_path / "out").exists()


def test_no_such_derivatives(call, tiny_bids, tmp_path):
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "-d", tmp_path / "nowhere")
    assert code == 66
    assert "nowhere" in err


def test_not_bids(call, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file.txt").write_text("x")
    code, _, err = call(tmp_path / "in", tmp_path / "out", "participant")
    assert code == 16
    assert "dataset_description.json" in err


def test_no_bold(call, tmp_path):
    (tmp_path / "in" / "sub-01" / "anat").mkdir(parents=True)
    (tmp_path / "in" / "dataset_description.json").write_text(
        json.dumps({"Name": "x", "BIDSVersion": "1.10.0"})
    )
    code, _, err = call(tmp_path / "in", tmp_path / "out", "participant")
    assert code in (16, 18)
    assert "BOLD" in err


def test_derivatives_in_the_place_of_the_raw_dataset(call, tiny_bids, tmp_path):
    code, _, err = call(tiny_bids / "derivatives" / "fmriprep", tmp_path / "out", "participant")
    assert code == 18
    assert "events.tsv" in err


@pytest.mark.parametrize("level", ["participant", "group"])
@pytest.mark.parametrize(
    ("words", "unknown", "existing"),
    [
        (("--participant-label", "01", "99"), "99", ("01", "02", "03")),
        (("--participant-label", "sub-77"), "77", ("01", "02", "03")),
        (("--task-id", "rest"), "rest", ("motor", "wm")),
        (("--session-id", "x"), "x", ()),
        (("--space", "fsaverage"), "fsaverage", ("MNI152NLin2009cAsym",)),
    ],
    ids=lambda w: "-".join(w) if isinstance(w, tuple) else w,
)
def test_no_match(call, tiny_bids, tmp_path, level, words, unknown, existing):
    out = tmp_path / "out"
    if level == "group":
        from support.tiny_model import make_model

        out.mkdir()
        make_model().save(out / "model")
    code, _, err = call(tiny_bids, out, level, *words)
    assert code == 18
    message = err.strip().splitlines()[-1]
    assert unknown in message
    for label in existing:
        assert label in message


def test_output_inside_input(call, tiny_bids, tmp_path):
    before = sorted(tiny_bids.rglob("*"))
    for place in ("sub-01", "new", "derivatives/fmriprep/new", "."):
        code, _, err = call(tiny_bids, tiny_bids / place, "participant")
        assert code == 73, place
        assert "input" in err
    assert call(tiny_bids, tiny_bids.parent, "participant")[0] == 73
    assert sorted(tiny_bids.rglob("*")) == before


def test_output_that_cannot_be_created(call, tiny_bids, tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        code, _, err = call(tiny_bids, place, "participant")
        assert code == 73
        assert str(tmp_path / "file") in err


def test_work_inside_input(call, tiny_bids, tmp_path):
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "-w", tiny_bids / "work")
    assert code == 64
    assert "work" in err
    assert not (tiny_bids / "work").exists()


def test_no_such_model(call, tiny_bids, tmp_path):
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "--model", tmp_path / "nowhere")
    assert code == 64
    assert "nowhere" in err


def test_a_directory_that_is_no_model(call, tiny_bids, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "--model", tmp_path / "empty")
    assert code == 65
    assert "config.json" in err


def test_group_without_a_model_or_runs(call, tiny_bids, tmp_path):
    from support.tiny_model import make_model

    code, _, err = call(tiny_bids, tmp_path / "out", "group")
    assert code in (65, 66)
    assert "model" in err
    make_model().save(tmp_path / "out" / "model")
    code, _, err = call(tiny_bids, tmp_path / "out", "group")
    assert code == 18
    assert "participant level" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda(call, tiny_bids, tmp_path):
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "--device", "cuda")
    assert code == 64
    assert "no CUDA device" in err


def test_onsets_beyond_the_run(call, tiny_bids_copy, tmp_path):
    for path in tiny_bids_copy.rglob("*_events.tsv"):
        with open(path, "a") as stream:
            stream.write("5000\t1\thand\n" if "motor" in path.name else "5000\t1\ttwo\n")
    code, _, err = call(tiny_bids_copy, tmp_path / "out", "participant", "--max-steps", 1)
    assert code == 65
    assert "5000" in err
    assert "_events.tsv" in err


def test_all_images_truncated(call, tiny_bids_copy, tmp_path):
    for path in (tiny_bids_copy / "derivatives").rglob("*preproc_bold.nii.gz"):
        path.write_bytes(path.read_bytes()[:2000])
    code, _, err = call(tiny_bids_copy, tmp_path / "out", "participant", "--max-steps", 1)
    assert code in (18, 65)
    assert "preproc_bold.nii.gz" in err
    assert not (tmp_path / "out" / "model").exists()


def test_runs_shorter_than_a_window(call, bids_factory, tmp_path):
    root = bids_factory(n_volumes=12, participants=("01", "02"), tasks=("motor",))
    code, _, err = call(root, tmp_path / "out", "participant", "--max-steps", 1)
    assert code == 65
    assert "16 volumes" in err


def test_a_filter_file(call, tiny_bids, tmp_path):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"bold": {"task": "rest"}}))
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "--bids-filter-file", path)
    assert code == 18
    path.write_text("{")
    code, _, err = call(tiny_bids, tmp_path / "out", "participant", "--bids-filter-file", path)
    assert code == 65
    assert "filter.json" in err
    code, _, err = call(
        tiny_bids, tmp_path / "out", "participant", "--bids-filter-file", tmp_path / "none"
    )
    assert code == 64


def test_an_output_of_another_program(call, tiny_bids, tmp_path):
    shutil.copytree(tiny_bids / "derivatives" / "fmriprep", tmp_path / "out")
    code, _, err = call(tiny_bids, tmp_path / "out", "participant")
    assert code == 73
    assert "did not write" in err
    image = next((tmp_path / "out").rglob("*preproc_bold.nii.gz"))
    assert np.isfinite(nib.load(image).dataobj[..., 0]).all()


def test_a_user_without_a_home_gets_one(monkeypatch, call, tmp_path):
    """As in a container without HOME, for a user that passwd does not know."""

    def unknown(_uid):
        raise KeyError("no such user")

    monkeypatch.setenv("HOME", "")  # so that what the call sets is undone afterwards
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    assert call(tmp_path / "none", tmp_path / "out", "participant")[0] == 66
    assert Path.home() == Path("/")
