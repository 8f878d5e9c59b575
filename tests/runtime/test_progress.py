"""Progress is a bar on a terminal, and whole lines in a log."""

from __future__ import annotations

import io
import sys

import pytest
from tqdm import std as tqdm_std
from tqdm import tqdm

from fmrisynth.runtime import progress
from fmrisynth.runtime.progress import track


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def standard_error(monkeypatch, *, terminal: bool) -> Stream:
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.fixture
def clock(monkeypatch):
    """A clock that passes `step` seconds each time it is read."""

    class Clock:
        now, step = 1000.0, 0.0

        def __call__(self) -> float:
            self.now += self.step
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    monkeypatch.setattr(tqdm_std, "time", clock)
    return clock


def test_a_terminal_has_a_bar(monkeypatch):
    written = standard_error(monkeypatch, terminal=True)
    assert list(track(range(3), desc="Reading")) == [0, 1, 2]
    assert "\r" in written.getvalue()
    assert "Reading: 100%" in written.getvalue()


def test_what_is_done_within_a_minute_leaves_no_line_in_a_log(monkeypatch):
    written = standard_error(monkeypatch, terminal=False)
    assert list(track(range(3), desc="Reading")) == [0, 1, 2]
    with track(total=2, desc="Writing") as bar:
        bar.update()
        tqdm.write("a message", file=sys.stderr)
        bar.set_postfix({"loss": "1"})
        bar.update()
    assert written.getvalue() == "a message\n"


def test_a_log_has_a_line_a_minute_and_the_last_state(monkeypatch, clock):
    written = standard_error(monkeypatch, terminal=False)
    bar = track(total=100, desc="Training", unit="step")
    for second in range(1, 151):  # two and a half minutes
        clock.now += 1
        if second % 2 == 0:
            bar.update()
    bar.close()
    bar.close()
    lines = written.getvalue().splitlines()
    assert "\r" not in written.getvalue()
    assert len(lines) == 3
    assert all(line.startswith("Training: ") and "of 100 steps" in line for line in lines)
    assert lines[-1].startswith("Training: 75 of 100 steps, 02:30 passed")


def test_nothing_is_shown_where_it_is_not_wanted(monkeypatch, clock):
    written = standard_error(monkeypatch, terminal=False)
    clock.step = 100.0
    assert list(track(range(3), desc="Reading", disable=True)) == [0, 1, 2]
    assert written.getvalue() == ""
