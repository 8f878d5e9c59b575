"""Epochs of a condition."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fmrisynth.evaluation.measures.timecourses import epochs


def _events(*rows):
    return pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])


def test_close_events_are_one_epoch():
    events = _events((0, 2, "a"), (4, 2, "b"), (30, 1, "a"), (32, 1, "c"))
    onsets, durations = epochs(events, ["a", "b"])
    np.testing.assert_allclose(onsets, [0, 30])
    np.testing.assert_allclose(durations, [6, 1])
