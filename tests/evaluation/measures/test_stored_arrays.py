"""Arrays that lie in a file."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fmrisynth.evaluation.measures.stored_arrays import StoredArrays


def test_another_process_finds_the_arrays(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "none": np.zeros((0, 4)), "b": np.ones(5).T}
    stored = pickle.loads(pickle.dumps(StoredArrays(tmp_path / "arrays", arrays)))
    assert list(stored) == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(stored[name], values)
    with pytest.raises(KeyError):
        stored["c"]
