"""Events that did not happen are as many and as long as those that did, and evoke nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from support.evaluation_cohort import HELD_OUT, TRAINING, Recipe, write_cohort

from fmrisynth.bids.sham import with_sham_events
from fmrisynth.evaluation.evaluate import evaluate


def table(run):
    return pd.read_csv(run.events, sep="\t")


def test_sham_events_are_the_same_at_other_times(tmp_path):
    runs = write_cohort(tmp_path / "real", HELD_OUT[:2])
    shams = with_sham_events(runs, tmp_path / "sham", seed=1)
    for run, sham in zip(runs, shams, strict=True):
        real, moved = table(run), table(sham)
        assert sorted(moved["trial_type"]) == sorted(real["trial_type"])
        assert sorted(moved["duration"]) == sorted(real["duration"])
        assert moved["onset"].between(0, run.duration).all()
        assert moved["onset"].is_monotonic_increasing
        assert not np.isin(moved["onset"], real["onset"]).any()
        assert sham.bold == run.bold
    assert len({tuple(table(sham)["onset"]) for sham in shams}) == len(shams)
    # A run's draw does not depend on which others there are.
    (alone,) = with_sham_events(runs[-1:], tmp_path / "alone", seed=1)
    pd.testing.assert_frame_equal(table(alone), table(shams[-1]))


@pytest.mark.slow
def test_nothing_is_found_where_nothing_happened(tmp_path):
    held_out = write_cohort(tmp_path / "real", HELD_OUT)
    training = write_cohort(tmp_path / "real", TRAINING[:4])
    generators = {
        "again": write_cohort(tmp_path / "again", HELD_OUT, Recipe(noise_seed=1)),
        "sham": with_sham_events(held_out, tmp_path / "sham", seed=0),
    }
    found = evaluate(
        held_out, training, generators, work_dir=tmp_path / "work", progress=False
    ).estimates
    assert found["again"]["slope"].value > 0.7
    assert abs(found["sham"]["slope"].value) < 0.35
    assert found["sham"]["corr"].value < 0.5 * found["again"]["corr"].value
    assert found["sham"]["decoding_synthetic"].value < found["again"]["decoding_synthetic"].value
