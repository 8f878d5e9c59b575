"""Lock files between processes, on file systems without locks too."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

__all__ = ["locked"]

log = logging.getLogger(__name__)

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def locked(path: Path, *, patience: float = -1, waiting: str = "") -> Iterator[None]:
    """Hold a lock while the body of the ``with`` runs; of several processes one at a time does.

    Where the file system has no locks, as an NFS mount without its lock service,
    the existence of a file beside it is the lock. A dead process's lock is freed by
    the system, or taken over on the same machine.

    Parameters
    ----------
    path : Path
        The lock file; its folder exists.
    patience : float
        Time (s) after which waiting is logged.
    waiting : str
        What is logged then.

    Raises
    ------
    OSError
        The lock file cannot be written.
    """
    try:
        held = _acquire(FileLock(path), patience, waiting)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        soft = path.with_name(f"{path.name}.exists")
        log.warning(
            "the file system of %s has no locks (%s); the file %s is used instead. Remove it when "
            "no process uses this output any more and a call still waits.",
            path.parent,
            error,
            soft.name,
        )
        held = _acquire(SoftFileLock(soft), patience, waiting)
    with held:
        yield


def _acquire(
    lock: FileLock | SoftFileLock, patience: float, waiting: str
) -> contextlib.AbstractContextManager[object]:
    """Take a lock; what is returned gives it back at its end."""
    if patience < 0:
        return lock.acquire()
    try:
        return lock.acquire(timeout=patience)
    except Timeout:
        log.warning("%s", waiting)
        return lock.acquire()
