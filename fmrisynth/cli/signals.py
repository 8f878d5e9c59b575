"""End a call on SIGTERM as on any other error, so that half-written files are removed."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["EXIT_CODE", "ending_on_sigterm"]

EXIT_CODE = 128 + signal.SIGTERM  # as shells report it

log = logging.getLogger(__name__)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that half-written files are removed.

    A training handles SIGTERM itself, since it writes its state first.

    Raises
    ------
    SystemExit
        With code 143, after a message.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        log.error(
            "stopped by SIGTERM. What is finished is kept; run the same command again to go on."
        )
        sys.exit(EXIT_CODE)

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: leave the signals to it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
