"""Peaks and undershoots of mean time courses."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.metrics.timing import peak_latency, undershoot


def test_peak_and_undershoot_of_a_canonical_response():
    times = np.arange(-6.0, 30.0, 1.0)
    shape = lambda t, peak: np.where(t > 0, np.exp(-((t - peak) ** 2) / 8), 0.0)  # noqa: E731
    course = shape(times, 5.3) - 0.2 * shape(times, 15.0)
    assert peak_latency(times, course, 1.0) == pytest.approx(5.3, abs=0.1)
    assert undershoot(times, course, 1.0) == pytest.approx(-0.2, abs=0.02)
    assert np.isnan(peak_latency(times, -course - 1, 1.0))
