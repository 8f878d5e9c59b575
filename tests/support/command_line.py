"""Calling the command line within the process of the tests."""

import contextlib
import logging
import os

import pytest
import torch
from threadpoolctl import threadpool_limits

from fmrisynth.cli.main import command, main
from fmrisynth.runtime.threads import THREAD_VARIABLES


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The command line sets threads of its process."""
    threads = torch.get_num_threads()
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    with threadpool_limits():
        yield
    torch.set_num_threads(threads)


@contextlib.contextmanager
def _log_as_before():
    """The command line sets log handlers of its process; one process makes one call."""
    log = logging.getLogger("fmrisynth")
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    yield
    for handler in log.handlers:
        if handler not in handlers:
            handler.close()
    log.handlers[:] = handlers
    log.setLevel(level)
    log.propagate = propagate


def parse(*words):
    """Options as they are understood, without running anything."""
    return command.make_context("fmrisynth", [str(w) for w in words]).params


@pytest.fixture
def call(capsys):
    """Run the command line; its exit code and what it printed."""

    def run(*words, validate=False):
        options = ["--nprocs", "1", *([] if validate else ["--skip-bids-validation"])]
        with _log_as_before(), pytest.raises(SystemExit) as stop:
            main([str(w) for w in (*words, *options)])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        code = stop.value.code
        return 0 if code is None else code, shown.out, shown.err

    return run
