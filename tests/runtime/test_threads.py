"""Threads are limited in this process and in those that it starts."""

import os
import subprocess
import sys

import pytest
import torch

from fmrisynth.runtime.threads import THREAD_VARIABLES, limit_threads


@pytest.mark.usefixtures("restored_process")
def test_threads():
    limit_threads(2, 3)
    assert torch.get_num_threads() == 2
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"3"}
    code = (
        "from threadpoolctl import threadpool_info; import numpy; "
        "print(*(p['num_threads'] for p in threadpool_info()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cpus = len(os.sched_getaffinity(0))
    assert {int(n) for n in done.stdout.split()} == {min(3, cpus)}


@pytest.mark.parametrize(("words", "threads"), [((), 1), (("--omp-nthreads", "3"), 3)])
def test_threads_by_option(call, tiny_bids, tmp_path, words, threads):
    code, _, _ = call(tiny_bids, tmp_path / "out", "group", *words)
    assert code in (65, 66)  # there is no model, which comes after the threads
    assert torch.get_num_threads() == threads
    assert os.environ["OMP_NUM_THREADS"] == str(threads)
