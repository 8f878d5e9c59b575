"""Shares of variance from inner products."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.variance import RunVectors


def test_a_participant_drawn_twice_is_two_participants():
    rng = np.random.default_rng(5)
    means = rng.normal(size=(4, 30)) + np.repeat(rng.normal(size=(2, 30)), 2, axis=0)
    participants, tasks = np.array(["a", "a", "b", "b"]), np.array(["x", "y", "x", "y"])

    def vectors(rows, names):
        kept = means[rows]
        return RunVectors(
            kept @ kept.T,
            np.ones(len(rows)),
            np.full(len(rows), 10.0),
            {"participant": np.array(names), "task": tasks[rows]},
        )

    whole = vectors([0, 1, 2, 3], participants)
    copied = vectors([0, 1, 0, 1, 2, 3], ["a", "a", "c", "c", "b", "b"])
    weights = np.array([2.0, 2.0, 1.0, 1.0])
    for factor in ("participant", "task"):
        assert whole.share(factor, weights=weights) == pytest.approx(copied.share(factor))
