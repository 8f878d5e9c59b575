"""Show progress: as a bar on a terminal, as a line a minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["LINE_SECONDS", "track"]

LINE_SECONDS = 60.0
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} passed, {remaining} left{postfix}"


def track(
    items: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str = "run",
    total: int | None = None,
    initial: int = 0,
    disable: bool = False,
) -> tqdm[Any]:
    """Show on standard error how far an iteration has come; the arguments are tqdm's.

    Parameters
    ----------
    items : iterable, optional
        What is iterated over; without it, call ``update`` on what is returned.
    desc : str
        What is being done.
    unit : str
        Name of one item, in the singular.
    total, initial : int
        Number of all items, and of those that were done before.
    disable : bool
        Show nothing, as in all processes but one.

    Returns
    -------
    tqdm.tqdm
        To be iterated over, or to be used as a context manager.
    """
    kind = tqdm if sys.stderr.isatty() else _Lines
    return kind(items, desc=desc, unit=unit, total=total, initial=initial, disable=disable)


class _Lines(tqdm):
    """Write a line now and then, without the carriage returns by which a bar is redrawn."""

    _last_line: float
    _has_written = False

    def __init__(self, *args: Any, **options: Any) -> None:
        self._last_line = time.monotonic()  # before tqdm can ask for a display
        options |= {"bar_format": _LINE, "delay": LINE_SECONDS}
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write the state, unless a line was written less than a minute ago."""
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS:
            self._last_line, self._has_written = now, True
            self._write()

    def _write(self) -> None:
        self.fp.write(f"{self}\n")
        self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: a line of a log stays."""

    def moveto(self, n: int) -> None:
        """Do nothing: a log has no cursor."""

    def close(self) -> None:
        """Write the last state where one was written before."""
        if self.disable:
            return
        self.disable = True
        self._decr_instances(self)  # type: ignore[attr-defined]
        if self._has_written:
            self._write()
