"""What is said while the work goes on: above the progress bars, and in full in a log file."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from tqdm import tqdm

from fmrisynth.runtime.files import make_folder, writing

__all__ = ["has_started", "start_log"]


class _BesideBars(logging.Handler):
    """Writes messages above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        tqdm.write(self.format(record), file=sys.stderr)


def has_started() -> bool:
    """Whether messages reach the terminal through the log."""
    return any(isinstance(h, _BesideBars) for h in logging.getLogger("fmrisynth").handlers)


def start_log(output_dir: Path, *, verbose: bool) -> None:
    """Log to the terminal and, in full, to a file of this call's own.

    Parameters
    ----------
    output_dir : pathlib.Path
        The file goes into its folder ``logs``.
    verbose : bool
        Show on the terminal, too, what is meant for the file.
    """
    folder = make_folder(output_dir / "logs")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"fmrisynth_{stamp}_{time.monotonic_ns() % 10**6:06d}.log"
    with writing(folder / name):
        kept = logging.FileHandler(folder / name, encoding="utf-8")
    shown = _BesideBars()
    shown.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    shown.setLevel(logging.DEBUG if verbose else logging.INFO)
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("fmrisynth")
    log.setLevel(logging.DEBUG)
    log.handlers[:] = [shown, kept]
    log.propagate = False  # a library's handler on the root would say everything twice
