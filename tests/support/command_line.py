"""Call the command line within the process of the tests."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from fmrisynth.cli.main import command, main


@contextlib.contextmanager
def restored_log() -> Iterator[None]:
    """Restore level and handlers of the log, which each call of the command line sets."""
    log = logging.getLogger("fmrisynth")
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    try:
        yield
    finally:
        for handler in log.handlers:
            if handler not in handlers:
                handler.close()
        log.handlers[:] = handlers
        log.setLevel(level)
        log.propagate = propagate


@contextlib.contextmanager
def restored_process() -> Iterator[None]:
    """Restore environment, number of threads, numpy's global generator and the log."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    random_state = np.random.get_state()  # noqa: NPY002
    try:
        with threadpool_limits(), restored_log():
            yield
    finally:
        np.random.set_state(random_state)  # noqa: NPY002
        torch.set_num_threads(threads)
        for name in os.environ.keys() - environment:
            del os.environ[name]
        os.environ.update(environment)


def parse(*words: object) -> dict[str, Any]:
    """Parse options as the command line does, without running anything."""
    return command.make_context("fmrisynth", [str(w) for w in words]).params


def run_command_line(
    capsys: pytest.CaptureFixture[str], *words: object, validate: bool = False
) -> tuple[int, str, str]:
    """Run the command line with one process; return exit code, output and messages.

    The test has to use the fixture `restored_process`.
    """
    options = ["--nprocs", "1", *([] if validate else ["--skip-bids-validation"])]
    with restored_log(), pytest.raises(SystemExit) as stop:
        main([str(w) for w in (*words, *options)])
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    code = stop.value.code
    return 0 if code is None else int(code), shown.out, shown.err
