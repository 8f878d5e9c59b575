"""Log to the terminal, above the progress bars, and in full to a file."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from tqdm import tqdm

from fmrisynth.runtime.files import make_folder, writing

__all__ = ["has_started", "start_log"]


class _AboveBars(logging.Handler):
    """Write messages to the terminal above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        tqdm.write(self.format(record), file=sys.stderr)


class _Once(logging.Filter):
    """Let a warning pass the first time alone: what is odd about a run is found at each reading."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a message is new, or no warning."""
        if record.levelno != logging.WARNING:
            return True
        message = record.getMessage()
        is_new = message not in self._said
        self._said.add(message)
        return is_new


def has_started() -> bool:
    """Return whether `start_log` has been called, so that messages reach the terminal."""
    return any(isinstance(h, _AboveBars) for h in logging.getLogger("fmrisynth").handlers)


def start_log(output_dir: Path, *, verbose: bool) -> None:
    """Log to the terminal and, in full, to a new file.

    Parameters
    ----------
    output_dir : pathlib.Path
        Output directory; the file goes into its folder ``logs``.
    verbose : bool
        Whether the terminal shows everything that goes into the file.
    """
    folder = make_folder(output_dir / "logs")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"fmrisynth_{stamp}_{time.monotonic_ns() % 10**6:06d}.log"
    with writing(folder / name):
        file = logging.FileHandler(folder / name, encoding="utf-8")
    terminal = _AboveBars()
    terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    terminal.setLevel(logging.DEBUG if verbose else logging.INFO)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    terminal.addFilter(_Once())
    log = logging.getLogger("fmrisynth")
    log.setLevel(logging.DEBUG)
    log.handlers[:] = [terminal, file]
    log.propagate = False  # a library's handler on the root would say everything twice
