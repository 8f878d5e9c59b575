"""Runs compared at every shift in time."""

from __future__ import annotations

import numpy as np

from fmrisynth.evaluation.measures.similarity import shifted_correlation


def test_the_best_shift_is_found_and_noise_has_none():
    rng = np.random.default_rng(1)
    first = rng.normal(size=(60, 48)).astype(np.float32)
    moved, longer = np.roll(first, 7, axis=1), np.pad(first, ((0, 0), (15, 5)))
    other = rng.normal(size=(60, 40)).astype(np.float32)
    found = shifted_correlation([first], [moved, longer, first[:, 20:], other])
    np.testing.assert_allclose(found[0, :3], 1.0, atol=1e-3)
    assert abs(found[0, 3]) < 0.3
    np.testing.assert_allclose(found, shifted_correlation([moved, longer, first[:, 20:], other],
                                                          [first]).T, atol=1e-4)  # fmt: skip


def test_shifts_that_leave_less_than_half_in_common_do_not_count():
    rng = np.random.default_rng(2)
    first = rng.normal(size=(60, 40)).astype(np.float32)
    second = rng.normal(size=(60, 40)).astype(np.float32)
    second[:, :15] = first[:, 25:]
    assert shifted_correlation([first], [second])[0, 0] < 0.3
