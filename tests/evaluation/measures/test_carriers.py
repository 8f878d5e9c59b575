"""Distances of mean images: between people, from others, and of copies."""

import numpy as np
import pytest

from fmrisynth.evaluation.measures.carriers import (
    MeanImages,
    closest,
    nearer,
    nearest,
    nearest_other,
    retest_distances,
)

RNG = np.random.default_rng(0)


def test_distances_of_people_of_one_kind_do_not_depend_on_who_was_learned_from():
    """Leaving out one in turn makes up for nobody being compared with themselves."""
    values = []
    for _ in range(300):
        people = RNG.standard_normal((9, 4))
        values.append((nearest(people[:4], people[4:]).mean(), nearest_other(people[4:]).mean()))
    held_out, learned = np.mean(values, axis=0)
    assert held_out == pytest.approx(learned, rel=0.05)


def test_a_copy_is_at_no_distance():
    people = RNG.standard_normal((5, 30))
    assert (closest(people[:2], people) == 0).all()
    assert (nearest(people[:2], people) < 0.5 * nearest_other(people)[:2]).all()


def test_the_chance_to_be_nearer():
    assert nearer(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert nearer(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 0
    assert nearer(np.array([1.0, 3.0]), np.array([2.0])) == 0.5
    assert nearer(np.array([2.0]), np.array([2.0, 2.0])) == 0.5


def test_participants_with_a_single_run_have_no_retest():
    whole = RNG.standard_normal((3, 6))
    halves = np.stack([whole, whole + 1], axis=1)
    halves[1] = np.nan
    np.testing.assert_allclose(retest_distances(MeanImages(("a", "b", "c"), whole, halves)), [1, 1])
