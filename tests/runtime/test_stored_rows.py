"""Rows on the disk are what was put there, and take no memory."""

import os

import numpy as np
import pytest

from fmrisynth.errors import FmrisynthError
from fmrisynth.runtime.stored_rows import NamedRows, StoredRows


def test_rows_are_zero_until_they_are_set(tmp_path):
    rows = StoredRows(tmp_path, (4, 2, 3))
    assert len(rows) == 4
    assert not rows[3].any()
    new = np.arange(6, dtype=np.float32).reshape(2, 3)
    rows[2] = new
    np.testing.assert_array_equal(rows[2], new)
    np.testing.assert_array_equal(rows.take([3, 2, 0]), [0 * new, new, 0 * new])
    np.testing.assert_array_equal(list(rows), [0 * new, 0 * new, new, 0 * new])
    rows[2] = rows[2].T[::-1].T  # not contiguous
    np.testing.assert_array_equal(rows[2], new[:, ::-1])


def test_what_is_read_is_a_copy(tmp_path):
    rows = StoredRows(tmp_path, (2, 3))
    rows[0] += 1
    read = rows[0]
    read += 1
    np.testing.assert_array_equal(rows[0], [1, 1, 1])


def test_rows_have_names(tmp_path):
    rows = StoredRows(tmp_path, (2, 1))
    rows[1] = np.ones(1)
    named = NamedRows(["01", "02"], rows)
    assert list(named) == ["01", "02"]
    assert named["02"] == 1
    assert named.get("03") is None


def test_their_file_ends_with_them(tmp_path):
    rows = StoredRows(tmp_path / "new", (2, 3))
    rows[0] = np.ones(3)
    before = len(os.listdir("/proc/self/fd"))
    del rows
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FmrisynthError, match="file"):
        StoredRows(tmp_path / "file", (1, 1))
