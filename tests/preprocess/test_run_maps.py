"""Maps of many runs are read when they are needed, and their median is that of all of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from fmrisynth.preprocess import run_maps
from fmrisynth.preprocess.run_maps import MapsOfRuns, StackedMaps, median_map


@pytest.mark.parametrize("at_once", [1, 100, 10**6])
def test_the_median_is_the_same_however_much_is_read_at_once(monkeypatch, at_once):
    monkeypatch.setattr(run_maps, "VALUES_AT_ONCE", at_once)
    maps = np.random.default_rng(0).standard_normal((7, 5, 3, 2)).astype(np.float32)
    runs = [SimpleNamespace(noise_sd=one) for one in maps]
    found = median_map(MapsOfRuns(runs, "noise_sd"))
    np.testing.assert_array_equal(found, np.median(maps, axis=0))
    assert found.dtype == np.float32


def test_stacked_maps_are_an_array_of_what_they_are_now():
    run = SimpleNamespace(mean=np.ones((2, 2, 2)), noise_sd=np.zeros((2, 2, 2)))
    maps = StackedMaps(run, "mean", "noise_sd")
    run.mean = 3 * run.mean
    array = np.asarray(maps, np.float32)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array[:, 0, 0, 0], [3, 0])
