"""Files are written whole or not at all, and leftovers of dead processes are removed."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from fmrisynth.errors import OutputError
from fmrisynth.runtime.files import atomic_path, remove_leftovers, write_text


def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = write_text(tmp_path / "a.txt", "old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            assert temporary.suffix == ".txt"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_outputs_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "x")


def _write_and_die(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), 9)


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_write_and_die, args=(tmp_path / "a.txt",)
    )
    process.start()
    process.join(60)
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    with atomic_path(tmp_path / "b.txt") as mine:
        mine.write_text("alive")
        assert remove_leftovers(tmp_path) == tuple(left)
        assert mine.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]
