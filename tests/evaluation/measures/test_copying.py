"""Scores of membership."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.measures.copying import membership_auc


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_membership_is_half_for_equal_scores_and_one_for_copies(rng):
    same = rng.normal(size=(2, 300))
    assert membership_auc(*same) == pytest.approx(0.5, abs=0.06)
    assert membership_auc(same[0] + 10, same[1]) == 1.0
    assert np.isnan(membership_auc(np.zeros(0), same[1]))
