"""Decoders of trial types."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.cohort.samples import Samples
from fmrisynth.evaluation.metrics.decoding import accuracy


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_decoding_recognises_patterns_and_not_noise(rng):
    patterns = rng.normal(size=(4, 50))
    labels = np.tile(np.arange(4), 20)
    participants = np.repeat(["a", "b"], 40)
    good = Samples(patterns[labels] + rng.normal(size=(80, 50)), labels, participants)
    noise_alone = Samples(rng.normal(size=(80, 50)), labels, participants)
    assert accuracy(good.of(["a"]), good.of(["b"])).mean() > 0.9
    assert accuracy(noise_alone.of(["a"]), good.of(["b"])).mean() < 0.55
