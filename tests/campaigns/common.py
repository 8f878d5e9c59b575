"""Provide tiny data, a command line in its own process and comparisons to all campaigns."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fmrisynth

__all__ = ["GROUP", "TINY", "differences", "leftovers", "listing", "start", "tiny_dataset"]

REPOSITORY = Path(fmrisynth.__file__).parents[1]
# as small as it goes, and repeatable: steps instead of seconds, one thread, full precision
TINY = [
    *("--set", "preprocess.voxel_size=4"),
    *("--set", "denoiser.backbone.widths=[16, 32]"),
    *("--set", "denoiser.backbone.blocks=[1, 1]"),
    *("--max-steps", "3"),
    *("--sampling-steps", "2"),
    *("--precision", "32-true"),
    *("--device", "cpu"),
    *("--nprocs", "1"),
]
GROUP = ["--nprocs", "1"]
# names under which files and folders are prepared before they get their own
_UNFINISHED = re.compile(r"~|\.writing$|\.new$|\.tmp$|\.part$")


def tiny_dataset(root: Path, **options: Any) -> Path:
    """Write the tests' tiny tree; 3 participants with 2 runs each unless asked otherwise."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    try:
        from support.bids_tree import make_bids
    finally:
        sys.path.pop(0)
    return Path(make_bids(root, **options))


def start(
    *words: object, env: Mapping[str, str | None] | None = None, prefix: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start ``fmrisynth`` with these words; `env` changes variables (None: unset)."""
    path = os.pathsep.join(p for p in (str(REPOSITORY), os.environ.get("PYTHONPATH")) if p)
    variables: dict[str, str | None] = {
        **os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {}),
    }  # fmt: skip
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "fmrisynth", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in variables.items() if value is not None},
    )


def listing(root: Path) -> dict[str, str]:
    """Every file of an output directory with a hash of what must be the same in every run.

    Left out are the logs, whose names and lines hold the time. The date in
    CHANGES and the seconds of a training (logs, provenance, card) are not compared.
    """
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir() or re.fullmatch(r"logs/.*\.log", name):
            continue
        content = path.read_bytes()
        if name == "CHANGES":
            content = re.sub(rb"\d{4}-\d\d-\d\d", b"", content)
        if name == "model/config.json":
            content = re.sub(rb'(?s)"seconds": \{.*?\}', b"", content)
        if name == "model/README.md":  # | stage | steps | seconds |
            content = re.sub(rb"(?m)^(\| .* \| \d* \|) [\d.]+ \|$", rb"\1", content)
        if re.fullmatch(r"model/log-.*\.csv", name):  # step, seconds, losses
            content = re.sub(rb"(?m)^(\d+),[\d.]+", rb"\1", content)
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """What is missing, too much, or has another content."""
    return [
        *(f"missing {name}" for name in sorted(one.keys() - other.keys())),
        *(f"unexpected {name}" for name in sorted(other.keys() - one.keys())),
        *(f"differs {n}" for n in sorted(one.keys() & other.keys()) if one[n] != other[n]),
    ]


def leftovers(*roots: Path) -> list[str]:
    """Files and folders with a temporary name."""
    return [
        str(path)
        for root in roots
        for path in sorted(root.rglob("*"))
        if _UNFINISHED.search(path.name)
    ]
