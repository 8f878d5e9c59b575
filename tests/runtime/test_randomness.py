"""Keyed random numbers depend on their key alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fmrisynth.runtime.randomness import keyed_generator, keyed_seed


def test_the_same_key_gives_the_same_numbers_on_every_machine():
    assert keyed_seed(3, "corr", "real") == 2329219991717742478
    first, second = (keyed_generator(3, "corr", "real").random(4) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@given(st.lists(st.tuples(st.integers(0, 9), st.text(), st.text()), unique=True))
def test_different_keys_give_different_seeds(keys):
    assert len({keyed_seed(*key) for key in keys}) == len(keys)


def test_seeds_fit_torch_and_numpy():
    seeds = [keyed_seed(0, number) for number in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert abs(np.mean(seeds) / 2**63 - 0.5) < 0.1
