"""Locks exclude other processes, with and without the file system's help."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import filelock
import pytest

from fmrisynth.runtime.locks import locked


@pytest.fixture(params=["locks", "no locks"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "no locks":

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.flock", refuse)
        monkeypatch.setattr("fcntl.lockf", refuse)
    return tmp_path


def test_one_at_a_time(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside: list[str] = []

    def work(name: str) -> None:
        with locked(folder / "a.lock", patience=0.05, waiting="waiting for the other"):
            inside.append(f"{name} in")
            time.sleep(0.3)
            inside.append(f"{name} out")

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = inside[0][0]
    assert inside == [f"{n} {w}" for n in (first, "ab".replace(first, "")) for w in ("in", "out")]
    assert "waiting for the other" in caplog.text


def test_a_file_stands_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / "a.lock"):
        assert (tmp_path / "a.lock.exists").exists()
    assert not (tmp_path / "a.lock.exists").exists()
    assert "has no locks" in caplog.text


def test_other_errors_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with pytest.raises(OSError, match="No space"), locked(tmp_path / "a.lock"):
        pass
