"""Decoders of trial types."""

from __future__ import annotations

import numpy as np
import pytest

from fmrisynth.evaluation.cohort.samples import Samples
from fmrisynth.evaluation.metrics.decoding import _accuracies, accuracy


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


def test_more_maps_than_supervoxels_give_the_same_decoder(rng):
    """It is solved on the side of the supervoxels then."""
    patterns = rng.normal(size=(4, 30))
    labels = np.tile(np.arange(4), 30)
    x, z = (patterns[labels] + 3.0 * rng.normal(size=(120, 30)) for _ in range(2))
    people = np.repeat("a", 120)
    found = accuracy(Samples(x, labels, people), Samples(z, labels, people))
    unit_x, unit_z = (
        (maps - maps.mean(axis=1, keepdims=True)) / maps.std(axis=1, keepdims=True) / 30**0.5
        for maps in (x, z)
    )
    targets = np.eye(4)[labels] - 0.25
    weights = unit_x.T @ np.linalg.solve(unit_x @ unit_x.T + np.eye(120), targets)
    assert (found == (np.argmax(unit_z @ weights, axis=1) == labels)).all()
    assert 0.3 < found.mean() < 1.0


def test_nobody_is_decoded_by_what_was_made_for_them(rng):
    """Forty people are decoded in sixteen groups, each without the synthetic maps of its own."""
    patterns = rng.normal(size=(2, 40, 60))
    participants = np.repeat([f"{i:02d}" for i in range(40)], 2)
    labels = np.tile([0, 1], 40)
    maps = np.swapaxes(patterns, 0, 1).reshape(80, 60)  # nothing in common between people
    own = Samples(maps, labels, participants)
    groups = []

    def others(group):
        groups.append(tuple(group))
        return [own.of(group, keep=False)]

    assert _accuracies(own, [others]).mean() < 0.65
    assert len(groups) == 16
    assert sorted(name for group in groups for name in group) == sorted(set(participants))
    assert _accuracies(own, [own]).mean() > 0.8  # with its own maps among them


@pytest.mark.parametrize("n", [8, 60])  # fewer maps than supervoxels, and more
def test_maps_to_learn_from_may_come_in_parts(rng, n):
    labels = rng.integers(0, 3, 3 * n)
    features = 0.3 * np.eye(3, 30)[labels] + 0.2 * rng.normal(size=(3 * n, 30))
    maps = Samples(features, labels, np.array(["a", "b", "c"]).repeat(n))
    first, second, third = (maps.of([name]) for name in "abc")
    np.testing.assert_array_equal(accuracy(first, third, second), accuracy(maps.of("ab"), third))
