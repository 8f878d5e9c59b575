"""Dice overlap of thresholded maps."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.metrics.overlap import dice, significant, strongest


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_dice_of_unrelated_maps_is_the_share(rng):
    first, second = rng.normal(size=(2, 1, 20_000))
    assert dice(strongest(first), strongest(second)) == pytest.approx(0.05, abs=0.02)


def test_significant_voxels_are_as_many_as_the_p_value_says():
    rng = np.random.default_rng(3)
    null = rng.normal(size=(6, 50_000)).astype(np.float32)
    assert significant(null).mean() == pytest.approx(0.01, abs=0.002)
    assert significant(null + 20).all()
    assert significant(null[:1]) is None
    assert np.isnan(dice(significant(null), np.zeros(50_000, dtype=bool)))
