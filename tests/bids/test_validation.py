"""The BIDS validator stops a call on errors in what is read, and on nothing else."""

import json
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from fmrisynth.bids import validation as module
from fmrisynth.bids.validation import validation
from fmrisynth.errors import NoMatchError, NotBIDSError


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.INFO, "fmrisynth")
    logging.getLogger("fmrisynth").propagate = True
    return caplog


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A program in the validator's place; it notes its arguments."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))

    def make(body):
        path = tmp_path / "bin" / module.VALIDATOR
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/arguments\n{body}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
        return tmp_path / "arguments"

    return make


def report(*issues):
    return f"cat <<'END'\n{json.dumps({'issues': {'issues': issues}})}\nEND\nexit 16"


def error(code, location, **more):
    return {"severity": "error", "code": code, "location": location, **more}


# The real validator


@pytest.mark.validator
def test_valid_raw_data(tiny_bids, messages):
    with validation(tiny_bids, None):
        pass
    assert "found no error" in messages.text


@pytest.mark.validator
def test_errors_are_listed(tiny_bids_copy):
    for number in range(8):
        (tiny_bids_copy / "sub-01" / "func" / f"sub-01_colour-{number}_bold.nii.gz").touch()
    with (
        pytest.raises(NotBIDSError, match="--skip-bids-validation") as caught,
        validation(tiny_bids_copy, None),
    ):
        pass
    lines = str(caught.value).splitlines()
    assert "sub-01_colour-" in lines[1]
    assert len(lines) == module.SHOWN + 3
    assert "more" in lines[-2]


@pytest.mark.validator
def test_what_is_met_run_by_run_does_not_stop(tiny_bids_copy):
    """Empty images, wrong tables of events, and what is not read."""
    next(tiny_bids_copy.rglob("sub-01_task-motor_events.tsv")).write_text("trial_type\tonset\n")
    folder = tiny_bids_copy / "sub-01" / "anat"
    folder.mkdir()
    (folder / "rubbish.txt").touch()
    with validation(tiny_bids_copy, None):
        pass


@pytest.mark.validator
def test_the_command_line_stops(call, tiny_bids_copy, tmp_path):
    (tiny_bids_copy / "task-motor_bold.json").write_text('{"TaskName": 3}')
    words = (tiny_bids_copy, tmp_path / "out", "participant", "--model", tmp_path / "nowhere")
    code, _, err = call(*words, validate=True)
    assert code == 16
    assert "task-motor_bold.json" in err
    assert "--skip-bids-validation" in err
    assert call(*words)[0] == 64  # not validated: it gets as far as the model


# A stand-in


def test_arguments_reach_the_program_as_they_are(stand_in, tiny_bids, tmp_path):
    """A name that a shell would run is one word."""
    arguments = stand_in(report())
    odd = tmp_path / "in; touch hacked $(touch hacked)"
    odd.symlink_to(tiny_bids)
    with validation(odd, None):
        pass
    assert arguments.read_text().splitlines()[0] == str(tiny_bids.resolve())
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    "issue",
    [
        error("EMPTY_FILE", "/sub-01/func/sub-01_task-x_bold.nii.gz"),
        error("PARTICIPANT_ID_MISMATCH", "/participants.tsv"),
        error("SIDECAR_KEY_REQUIRED", "/sub-01/func/sub-01_task-y_bold.nii.gz"),
        error("ANY", "/sub-01/func/sub-01_task-x_events.tsv"),
        error("ANY", "/sub-01/ses-1/dwi/sub-01_ses-1_dwi.nii.gz"),
        error("ANY", "/phenotype/x.tsv"),
        {"severity": "warning", "code": "ANY", "location": "/participants.tsv"},
    ],
    ids=lambda issue: issue["location"],
)
def test_issues_that_do_not_matter(stand_in, tiny_bids, issue):
    stand_in(report(issue))
    with validation(tiny_bids, None):
        pass


@pytest.mark.parametrize(
    "location",
    [
        "/dataset_description.json",
        "/task-x_bold.json",
        "/sub-01/sub-01_scans.tsv",
        "/sub-01/ses-1/sub-01_ses-1_scans.tsv",
        "/sub-01/func/sub-01_task-x_bold.json",
        "/sub-01/ses-1/func/sub-01_ses-1_task-x_bold.nii.gz",
        None,
    ],
)
def test_issues_that_matter(stand_in, tiny_bids, location):
    stand_in(report(error("ANY", location, subCode="Name", issueMessage="first\nsecond")))
    with (
        pytest.raises(NotBIDSError, match=r"found 1 errors(.|\n)*ANY/Name.*first\)"),
        validation(tiny_bids, None),
    ):
        pass


@pytest.mark.parametrize(
    "body", ["echo broken >&2; exit 1", "echo '{\"issues\": 3}'", "printf '\\377'", "exit 0"]
)
def test_a_validator_that_fails_stops_nothing(stand_in, tiny_bids, messages, body):
    stand_in(body)
    with validation(tiny_bids, None):
        pass
    assert "going on without it" in messages.text


def test_a_validator_that_does_not_end(stand_in, tiny_bids, messages, monkeypatch):
    stand_in("exec sleep 60")
    monkeypatch.setattr(module, "LIMIT", 0.2)
    before = time.monotonic()
    with validation(tiny_bids, None):
        pass
    assert time.monotonic() - before < 30
    assert "was stopped" in messages.text


def test_another_error_ends_the_validator(stand_in, tiny_bids, tmp_path):
    stand_in(f"echo $$ > {tmp_path}/number; exec sleep 60")
    with pytest.raises(NoMatchError), validation(tiny_bids, None):  # noqa: PT012
        for _ in range(300):
            if (tmp_path / "number").exists() and (tmp_path / "number").read_text().strip():
                break
            time.sleep(0.1)
        raise NoMatchError("nothing there")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "number").read_text()), 0)


def test_one_that_cannot_be_started(stand_in, tiny_bids, tmp_path, messages):
    stand_in("")
    (tmp_path / "bin" / module.VALIDATOR).write_text("#!/nonexistent/interpreter\n")
    with validation(tiny_bids, None):
        pass
    assert "cannot be started" in messages.text


def test_none_installed_is_said(tiny_bids, tmp_path, monkeypatch, messages):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with validation(tiny_bids, None):
        pass
    assert "pip install bids-validator-deno" in messages.text


def test_derivatives_and_skipped_ones_are_not_validated(stand_in, tiny_bids, messages):
    arguments = stand_in(report(error("ANY", "/dataset_description.json")))
    with validation(tiny_bids / "derivatives" / "fmriprep", None):
        pass
    assert "no raw dataset" in messages.text
    with validation(tiny_bids, None, skip=True):
        pass
    assert not arguments.exists()


def test_a_valid_dataset_is_validated_again_when_it_has_changed(
    stand_in, tiny_bids_copy, tmp_path, messages
):
    arguments = stand_in(report())

    def calls():
        with validation(tiny_bids_copy, tmp_path / "work"):
            pass
        return arguments.read_text().count("--ignoreWarnings")

    assert [calls(), calls()] == [1, 1]
    assert "not validated again" in messages.text
    (tiny_bids_copy / "sub-01" / "func" / "sub-01_task-x_bold.nii.gz").touch()
    assert calls() == 2
    time.sleep(0.01)
    (tiny_bids_copy / "participants.tsv").write_text("participant_id\nsub-01\n")
    assert calls() == 3


def test_one_with_errors_is_validated_again(stand_in, tiny_bids, tmp_path):
    arguments = stand_in(report(error("ANY", "/dataset_description.json")))
    for _ in range(2):
        with pytest.raises(NotBIDSError), validation(tiny_bids, tmp_path / "work"):
            pass
    assert arguments.read_text().count("--ignoreWarnings") == 2
