"""Write files that appear only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrisynth.errors import FmrisynthError, InputOutputError, OutputError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "atomic_path",
    "make_folder",
    "remove_leftovers",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_text",
    "writing",
]

_CANNOT_CREATE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
# The temporary name ends in the target's, so that writers which choose the format by the
# extension work; host and process tell whether its writer still lives.
_TEMPORARY = re.compile(r"\.fmrisynth-(?P<host>[^~]*)-(?P<pid>\d+)-[0-9a-f]{8}~")
_FOREIGN_LEFTOVER_AGE = 24 * 3600.0  # s


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an OSError while `target` is written into an error of fmrisynth.

    Raises
    ------
    OutputError
        The place cannot be written to (permissions, read-only file system).
    InputOutputError
        Writing failed half-way (disk full, input/output error).
    """
    try:
        yield
    except FmrisynthError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _CANNOT_CREATE:
            raise OutputError(
                f"cannot write {target}: {reason}. Check the permissions of the folder, and "
                "that it is not mounted read-only."
            ) from error
        raise InputOutputError(
            f"writing {target} failed: {reason}. Nothing incomplete was left there; free some "
            "space or choose another place, and run the same command again."
        ) from error


def make_folder(folder: Path) -> Path:
    """Create `folder` and its parents.

    Raises
    ------
    OutputError
        It cannot be created.
    InputOutputError
        The disk is full or failing.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def atomic_path(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `target` when the block succeeds.

    The file is flushed to the disk before it gets its name, so that `target` is
    complete even after a power cut. On any exception the temporary file is
    removed and `target` stays as it was.

    Parameters
    ----------
    target : Path
        The file; a missing folder is created.
    durable : bool
        Whether to wait for the disk; False for a cache, which is rebuilt when it is damaged.

    Raises
    ------
    OutputError, InputOutputError
        As in `writing`.
    """
    make_folder(target.parent)
    tag = f".fmrisynth-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}~"
    temporary = target.with_name(tag + target.name)
    try:
        with writing(target):
            yield temporary
            if durable:
                _flush(temporary)
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(target: Path, content: bytes) -> Path:
    """Write `content` to `target` in one step; errors as in `atomic_path`."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    return target


def write_text(target: Path, content: str) -> Path:
    """Write `content` to `target` as UTF-8 in one step; errors as in `atomic_path`."""
    return write_bytes(target, content.encode("utf-8"))


def write_json(target: Path, content: Any) -> Path:
    """Write `content` to `target` as JSON in one step; errors as in `atomic_path`."""
    return write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_arrays(target: Path, arrays: Mapping[str, np.ndarray], *, durable: bool = True) -> Path:
    """Write arrays as numpy's ``.npz``, whole or not at all; see `atomic_path`."""
    import numpy as np  # help and errors come without

    named: dict[str, Any] = dict(arrays)
    with atomic_path(target, durable=durable) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **named)
    return target


def remove_leftovers(folder: Path) -> tuple[Path, ...]:
    """Remove the temporary files below `folder` whose writers are dead.

    A killed process cannot clean up. Files of living processes of this machine
    stay, and so do files of other machines that are younger than a day.

    Returns
    -------
    tuple of Path
        The removed files.
    """
    removed = []
    for parent, _, names in os.walk(folder):
        for name in names:
            match = _TEMPORARY.match(name)
            path = Path(parent, name)
            if match and _is_left_over(path, match["host"], int(match["pid"])):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(path)
    return tuple(removed)


def _machine() -> str:
    """Name the scope of a process number: the host and, in containers, the namespace."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return re.sub(r"[^A-Za-z0-9.]", "", f"{socket.gethostname()[:40]}.{namespace}")


def _is_left_over(path: Path, host: str, pid: int) -> bool:
    """Return whether the writer of a temporary file is dead, or has been silent for a day."""
    if host == _machine():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    try:
        return time.time() - path.stat().st_mtime > _FOREIGN_LEFTOVER_AGE
    except OSError:
        return False
