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
    assert [float(run[0, 0, 0, 0, 0]) for run in latents] == list(range(50))
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert latents[7].dtype == np.float16
    assert [run.max() for run in latents[2:4]] == [2, 3]
    cached_latents(keys, encode, tmp_path)
    assert encoded == list(range(50))
    with pytest.raises(IndexError):
        latents[50]
