"""Latents are encoded once and read from files that are open only while they are in use."""

from __future__ import annotations

import os

import numpy as np
import pytest

from fmrisynth.training.latents import cached_latents


def test_each_run_is_encoded_once_and_none_is_kept_open(tmp_path):
    encoded = []

    def encode(index):
        encoded.append(index)
        return np.full((4, 1, 2, 2, 2), index)

    keys = [f"run{k}" for k in range(50)]
    before = len(os.listdir("/proc/self/fd"))
    latents = cached_latents(keys, encode, tmp_path)
    assert len(latents) == 50
    runs = list(latents)
    parts = [run[1:3] for run in runs]
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert {(run.shape, len(run)) for run in runs} == {((4, 1, 2, 2, 2), 4)}
    assert [float(part.max()) for part in parts] == list(range(50))
    assert {(part.shape, part.dtype.name) for part in parts} == {((2, 1, 2, 2, 2), "float16")}
    assert [np.asarray(run, np.float32).max() for run in latents[2:4]] == [2, 3]
    cached_latents(keys, encode, tmp_path)
    assert encoded == list(range(50))
    with pytest.raises(IndexError):
        latents[50]
