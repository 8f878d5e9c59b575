"""New participants follow the design of the training participants, and take nothing else."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tiny_model import make_run

from fmrisynth.bids.dataset import Dataset
from fmrisynth.bids.new_participants import new_runs
from fmrisynth.errors import UsageError

PARTICIPANTS = ("01", "02", "03", "04")
TRAINING = ("01", "02", "03")


@pytest.fixture
def dataset(tmp_path):
    """Four participants of two tasks, who differ in length; one of them has a grid of its own."""
    runs = []
    for i, participant in enumerate(PARTICIPANTS):
        for task in ("motor", "wm"):
            folder = tmp_path / f"sub-{participant}"
            runs.append(
                make_run(
                    entities={"sub": participant, "task": task},
                    bold=folder / f"{task}.nii.gz",
                    mask=folder / "mask.nii.gz",
                    confounds=folder / "confounds.tsv",
                    siblings=(folder / "other.nii.gz",),
                    events=folder / f"{task}.tsv",
                    n_volumes=40 + i,
                )
            )
    runs[0] = replace(runs[0], shape=(9, 9, 9), resolution="odd")
    return Dataset(tmp_path, tuple(runs))


def test_labels_runs_and_events(dataset):
    runs = new_runs(dataset, TRAINING, 3, 0)
    assert [run.label for run in runs] == [
        f"sub-synth000{i}_task-{task}" for i in (1, 2, 3) for task in ("motor", "wm")
    ]
    sources = {run.events.parent.name for run in runs}
    assert sources == {f"sub-{participant}" for participant in TRAINING}
    for run in runs:
        assert run.n_volumes == 40 + PARTICIPANTS.index(run.events.parent.name[4:])


def test_nothing_but_the_design_is_taken(dataset):
    for run in new_runs(dataset, TRAINING, 4, 0):
        assert run.new
        assert run.mask is run.confounds is None
        assert run.siblings == ()
        assert not run.bold.is_absolute()
        assert run.shape == dataset.runs[1].shape
        assert run.resolution is None
        np.testing.assert_array_equal(run.affine, dataset.runs[1].affine)


def test_everybodys_turn_comes_before_anybodys_second(dataset):
    runs = new_runs(dataset, TRAINING, 8, 0)[::2]
    followed = [run.events.parent.name for run in runs]
    assert set(followed[:3]) == set(followed[3:6]) == {f"sub-{p}" for p in TRAINING}
    assert max(Counter(followed).values()) == 3


def test_more_participants_leave_those_that_are_there_as_they_are(dataset):
    few, many = (new_runs(dataset, TRAINING, n, 5) for n in (2, 7))
    assert [(r.label, r.events) for r in few] == [(r.label, r.events) for r in many[: len(few)]]


def test_a_dataset_without_training_participants_gives_its_own_design(dataset):
    followed = {run.events.parent.name for run in new_runs(dataset, ("77",), 4, 0)}
    assert followed == {f"sub-{participant}" for participant in PARTICIPANTS}


def test_labels_that_are_taken(dataset):
    there = replace(dataset.runs[0], entities={"sub": "synth0002", "task": "motor"})
    taken = replace(dataset, runs=(*dataset.runs, there))
    new_runs(taken, TRAINING, 1, 0)
    with pytest.raises(UsageError, match="a participant sub-synth0002 already"):
        new_runs(taken, TRAINING, 2, 0)
    Path(dataset.root, "sub-synth0001").mkdir()  # without a usable run
    with pytest.raises(UsageError, match="sub-synth0001"):
        new_runs(dataset, TRAINING, 1, 0)
