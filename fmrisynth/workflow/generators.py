"""What stands in the table of the group level: this output, baselines, and other outputs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmrisynth.baselines import BASELINES
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.synthetic_sidecars import PROVENANCE_KEY
from fmrisynth.errors import DataError, NoInputError, NoMatchError, UsageError
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING

__all__ = ["MODEL_NAME", "find_compared", "own_runs", "write_baselines"]

MODEL_NAME = "fmrisynth"

log = logging.getLogger(__name__)


def own_runs(out: Path, problems: dict[Path, str]) -> tuple[Run, ...]:
    """Find the synthetic runs of this output.

    Parameters
    ----------
    out : pathlib.Path
        The output directory.
    problems : dict
        Gets the runs that cannot be read, and why.

    Raises
    ------
    NoMatchError
        There is none.
    """
    runs = find_synthetic_runs(out, problems)
    if not runs:
        damaged = "".join(f"\n  {path}: {reason}" for path, reason in list(problems.items())[:3])
        raise NoMatchError(
            f"{out} holds no finished synthetic run that can be read; run the participant level "
            f"first, with the same output directory.{damaged}"
        )
    return runs


def find_compared(
    directories: Mapping[str, Path],
    held_out: Sequence[str],
    taken: Sequence[str],
    problems: dict[Path, str],
) -> dict[str, tuple[Run, ...]]:
    """Find the runs of other output directories, as further generators.

    Parameters
    ----------
    directories : mapping of str to pathlib.Path
        Name → output directory of fmrisynth.
    held_out : sequence of str
        Participants that are compared with, which no generator may have learned from.
    taken : sequence of str
        Names that other rows of the table have.
    problems : dict
        Gets the runs that cannot be read, and why.

    Raises
    ------
    UsageError
        A name is taken, or a generator has learned from held-out participants.
    NoInputError
        A directory does not exist.
    NoMatchError
        A directory holds no synthetic run.
    """
    found = {}
    for name, directory in directories.items():
        if name in (*taken, REAL, TRAINING) or not name:
            raise UsageError(
                f"--compare {name}={directory}: the name {name!r} is taken in the table; give "
                "another one, as NAME=DIR."
            )
        if not directory.is_dir():
            raise NoInputError(f"--compare {directory}: there is no such directory.")
        runs = find_synthetic_runs(directory, problems)
        if not runs:
            raise NoMatchError(
                f"--compare {directory} holds no finished synthetic run; expected an output "
                "directory of fmrisynth's participant level."
            )
        learned = sorted(
            {r.participant for r in runs if r.participant in held_out and _role(r) == "training"}
        )
        if learned:
            raise UsageError(
                f"--compare {directory}: its model has learned from {', '.join(learned)}, who are "
                "held out here, so that its figures would flatter it. Compare outputs of the same "
                "split only (same dataset, --random-seed and held_out_share)."
            )
        found[name] = runs
    return found


def _role(run: Run) -> str:
    """Return what the run's participant was to the model that made it."""
    return str(run.metadata[PROVENANCE_KEY].get("ParticipantRole", ""))


def write_baselines(
    names: Sequence[str],
    training: Sequence[Run],
    imitated: Sequence[Run],
    scratch: Path,
    high_pass: float,
    seed: int,
) -> dict[str, tuple[Run, ...]]:
    """Write the runs of the baselines that were asked for.

    Parameters
    ----------
    names : sequence of str
        As `baseline_names` returns them.
    training, imitated : sequence of Run
        Real runs to learn from, and to follow.
    scratch : pathlib.Path
        Each baseline gets a folder in it.
    high_pass : float
        Hz.
    seed : int
        Of their noise.

    Returns
    -------
    dict
        Name → runs.
    """
    written = {}
    for name in names:
        arguments = (scratch / name, high_pass, seed)
        try:
            written[name] = BASELINES[name](training, imitated, *arguments)
        except DataError as error:  # a run is damaged: find out which, and go on with the others
            log.warning("%s: %s; leaving out what cannot be read", name, error)
            training, imitated = _readable(training), _readable(imitated)
            written[name] = BASELINES[name](training, imitated, *arguments)
    return written


def _readable(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose images and events can be read."""
    readable = []
    for run in runs:
        with contextlib.suppress(DataError):
            load_bold(run)
            read_events(run.events, duration=run.duration)
            readable.append(run)
    return readable
