"""Results of rows and seeds, kept on disk, and their Markdown tables."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student

from fmrisynth import __version__

__all__ = ["Results", "append", "header", "interval", "table"]

Values = dict[str, float]


class Results:
    """Keep the values of every row and seed in a folder, one file each.

    Parameters
    ----------
    folder : pathlib.Path
        Results of other settings must not lie in it: it is named once by the user.
    settings : object
        All that the results depend on beside row and seed, as JSON.

    Raises
    ------
    SystemExit
        The folder holds results of other settings.
    """

    def __init__(self, folder: Path, settings: object) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path, content = folder / "settings.json", json.dumps(settings, sort_keys=True, default=str)
        if path.is_file() and path.read_text() != content:
            sys.exit(f"{folder} holds results of other settings ({path}); name another folder.")
        path.write_text(content)

    def get(self, row: str, seed: int, compute: Callable[[], Values]) -> Values:
        """Read the values of a row and seed, or compute and keep them."""
        path = self.folder / f"{slug(row)}-{seed}.json"
        if not path.is_file():
            started = time.monotonic()
            values = compute()
            path.write_text(json.dumps(values))
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"seed {seed}, {row}: {shown} ({time.monotonic() - started:.0f} s)", flush=True)
        return json.loads(path.read_text())


def slug(name: str) -> str:
    """Turn the name of a row into a file name."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def append(found: dict[str, dict[str, list[float]]], row: str, values: Values) -> None:
    """Append a seed's values to those of its row."""
    for column, value in values.items():
        found.setdefault(row, {}).setdefault(column, []).append(value)


def interval(values: Sequence[float], digits: int = 3) -> str:
    """Mean and 95 % interval over seeds (Student)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def table(rows: dict[str, dict[str, Sequence[float]]], columns: dict[str, int]) -> str:
    """Write rows as a Markdown table; columns by name with their digits."""
    lines = ["| row | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name, values in rows.items():
        cells = [
            interval(values[column], digits) if values.get(column) else ""
            for column, digits in columns.items()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def header() -> str:
    """Say when, on what and by which command: a line above a table."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    words = " ".join(["python", *sys.argv])
    return (
        f"`{words}`\n{time.strftime('%Y-%m-%d')}, fmrisynth {__version__}, "
        f"{platform.machine()}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads, "
        f"load {load:.1f} at the end"
    )
