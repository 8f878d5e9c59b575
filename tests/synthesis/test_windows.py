"""Tests of windows: they cover a run, and their weights sum to one at each frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrisynth.synthesis.windows import joining_weights, window_starts


@given(st.integers(1, 30), st.integers(0, 90), st.integers(1, 30))
def test_windows_cover_the_run_and_their_weights_sum_to_one(length, more, stride):
    stride, n_volumes = min(stride, length), length + more
    starts = window_starts(n_volumes, length, stride)
    assert starts[0] == 0
    assert starts[-1] == n_volumes - length
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= stride).all()
    weights = joining_weights(starts, n_volumes, length)
    total = np.zeros(n_volumes)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + length] += weight
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert (weights > 0).all()


def test_a_run_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="10 frames"):
        window_starts(10, 16, 8)
