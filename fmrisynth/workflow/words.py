"""Read the words of options: times, amounts of memory, pairs, paths and names."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmrisynth.bids.selection import ANY_TASK, read_filter_file
from fmrisynth.config.presets import preset_notice, read_preset

__all__ = [
    "BASELINE_NAMES",
    "DEFAULT_BASELINES",
    "SHAM",
    "STATISTICS_ONLY",
    "read_assignments",
    "read_baselines",
    "read_events_tables",
    "read_filters",
    "read_further_datasets",
    "read_gigabytes",
    "read_named_paths",
    "read_named_preset",
    "read_noise",
    "read_seconds",
]

SHAM = "sham"
"""Name of the row of real runs with events that did not happen."""

STATISTICS_ONLY = "statistics-only"
"""The model itself without its network: response model, noise level and noise model."""
BASELINE_NAMES = (STATISTICS_ONLY, "group-glm", "fmrisim")
"""The same, and the names of `fmrisynth.baselines.BASELINES`; a test compares them."""
DEFAULT_BASELINES = (STATISTICS_ONLY, "group-glm")
NO_BASELINE = "none"
NOISE_SOURCES = ("networks", "drift", "decoder", "physiology")
NO_NOISE = "none"

GB = {"K": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}

log = logging.getLogger(__name__)


def read_seconds(word: str) -> float:
    """Read ``HH:MM:SS``, ``MM:SS`` or seconds.

    Raises
    ------
    ValueError
        The word is no time, or zero.
    """
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+)", word)
    hours, minutes, rest = (int(g or 0) for g in match.groups()) if match else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + rest):
        raise ValueError(f"{word!r} is not a time; expected HH:MM:SS, such as 01:30:00.")
    return float(total)


def read_gigabytes(word: str) -> float:
    """Read an amount of memory (GB): a number, or a number with K, M, G or T behind it.

    Raises
    ------
    ValueError
        The word is no amount, or zero, or so large that megabytes were probably meant.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:([KMGT])i?B?)?", word, re.IGNORECASE)
    amount = float(match[1]) * GB[(match[2] or "G").upper()] if match else 0.0
    if not match or not amount:
        raise ValueError(
            f"{word!r} is not an amount of memory; expected GB, such as 16, or 16G or 16000M."
        )
    if match[2] is None and amount >= 1000:  # some programs read a bare number as MB
        raise ValueError(
            f"{word!r} without a unit means GB here; write {word}M, or {amount / 1000:g}G."
        )
    return amount


def read_assignments(words: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=VALUE`` pairs; of two with one name the later one counts.

    Raises
    ------
    ValueError
        A word has no equals sign.
    """
    pairs = [word.partition("=") for word in words]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise ValueError(f"{wrong[0]!r} has no '='; expected NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def read_named_paths(words: Sequence[str]) -> dict[str, Path]:
    """Read ``[NAME=]PATH`` words; a path without a name gets that of its last folder."""
    named: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        root = Path(path if equals else word)
        key = own = name if equals else root.resolve().name
        count = 1
        while key in named and named[key] != root:  # two datasets of one name are two
            count += 1
            key = f"{own}{count}"
        named[key] = root
    return named


def read_further_datasets(words: Sequence[str]) -> dict[str, Path]:
    """Read ``[NAME=]DIR`` words of datasets whose participants get the name before their label.

    Raises
    ------
    ValueError
        A name is given twice, or is none.
    """
    given = [name for name, equals, _ in (word.partition("=") for word in words) if equals]
    for name in given:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ValueError(
                f"{name!r} is no name of a dataset; expected letters, digits, dots, hyphens and "
                "underscores, as in NAME=DIR."
            )
        if given.count(name) > 1:
            raise ValueError(f"two datasets are called {name!r}; give each a name of its own.")
    named = read_named_paths(words)
    return {re.sub(r"[^A-Za-z0-9._-]", "-", name): path for name, path in named.items()}


def read_events_tables(words: Sequence[str]) -> dict[str, Path]:
    """Read ``[TASK=]FILE`` words; a file without a task is for the only task that there is.

    Raises
    ------
    ValueError
        A task has two tables, or one of several tables has no task.
    """
    tables: dict[str, Path] = {}
    for word in words:
        task, equals, path = word.rpartition("=")
        task = task.removeprefix("task-")
        if task in tables:
            raise ValueError(
                f"{word!r} is a second table for {f'the task {task}' if equals else 'every task'}."
            )
        tables[task] = Path(path)
    if len(tables) > 1 and ANY_TASK in tables:
        raise ValueError(f"say which task {str(tables[ANY_TASK])!r} is for: TASK=FILE.")
    return tables


def read_filters(word: str) -> dict[str, Any]:
    """Read the BIDS filter file of this name; errors as in `read_filter_file`."""
    return read_filter_file(Path(word))


def read_baselines(words: Sequence[str]) -> tuple[str, ...]:
    """Read names of baselines, without repeats; ``none`` alone gives an empty tuple.

    Raises
    ------
    ValueError
        There is no such baseline, or ``none`` is one of several words.
    """
    names = _chosen(words, BASELINE_NAMES, NO_BASELINE, "baseline")
    return () if names == (NO_BASELINE,) else names


def read_noise(words: Sequence[str]) -> tuple[str, ...]:
    """Read sources of noise, without repeats, or ``none`` alone.

    Raises
    ------
    ValueError
        There is no such source, or ``none`` is one of several words.
    """
    return _chosen(words, NOISE_SOURCES, NO_NOISE, "source of noise")


def _chosen(words: Sequence[str], known: Sequence[str], nothing: str, kind: str) -> tuple[str, ...]:
    """Read some of the known names, without repeats, or the word for none of them alone."""
    if unknown := [name for name in words if name not in (*known, nothing)]:
        raise ValueError(
            f"{unknown[0]!r} is no {kind}; expected one or more of {', '.join(known)}, or "
            f"{nothing}."
        )
    names = tuple(dict.fromkeys(words))
    if nothing in names and len(names) > 1:
        raise ValueError(f"{' '.join(words)!r}: {nothing} stands alone.")
    return names


def read_named_preset(word: str) -> str:
    """Return the present name of a preset, with a warning where version 0.1 meant another.

    Raises
    ------
    UsageError
        There is no such preset; the message lists those that there are.
    """
    if notice := preset_notice(word):
        log.warning("%s", notice)
    return read_preset(word)
