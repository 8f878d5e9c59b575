"""Find the synthetic runs that the group level compares: this output's and other outputs'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.imitations import find_imitations
from fmrisynth.bids.synthetic_sidecars import PROVENANCE_KEY
from fmrisynth.errors import NoInputError, NoMatchError, UsageError
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING

__all__ = ["MODEL_NAME", "find_compared", "find_judged", "find_own_runs", "judged_apart"]

MODEL_NAME = "fmrisynth"


def find_own_runs(out: Path, problems: dict[Path, str]) -> tuple[Run, ...]:
    """Find the synthetic runs of this output.

    Parameters
    ----------
    out : pathlib.Path
        The output directory.
    problems : dict
        Collects the runs that cannot be read, with the reason.

    Raises
    ------
    NoMatchError
        There is no finished synthetic run.
    """
    runs = find_synthetic_runs(out, problems)
    if not runs:
        damaged = "".join(f"\n  {path}: {reason}" for path, reason in list(problems.items())[:3])
        raise NoMatchError(
            f"{out} holds no finished synthetic run that can be read; run the participant level "
            f"first, with the same output directory.{damaged}"
        )
    return runs


def judged_apart(name: str, runs: Sequence[Run]) -> dict[str, tuple[Run, ...]]:
    """Part the runs of an output whose participants are the dataset's from those of new ones.

    Parameters
    ----------
    name : str
        Name of the generator.
    runs : sequence of Run
        Its synthetic runs.

    Returns
    -------
    dict
        The name → runs, and, where an output has both kinds, ``NAME, new participants`` → the
        others.
    """
    of_dataset = tuple(run for run in runs if not run.new)
    new = tuple(run for run in runs if run.new)
    if not of_dataset or not new:
        return {name: tuple(runs)}
    return {name: of_dataset, f"{name}, new participants": new}


def find_compared(
    directories: Mapping[str, Path],
    held_out: Sequence[str],
    reserved: Sequence[str],
    problems: dict[Path, str],
) -> dict[str, tuple[Run, ...]]:
    """Find the synthetic runs of other output directories.

    Parameters
    ----------
    directories : mapping of str to pathlib.Path
        Name → output directory of fmrisynth.
    held_out : sequence of str
        Participants whose real runs are the reference; no generator may have learned from them.
    reserved : sequence of str
        Names of the other generators of the comparison.
    problems : dict
        Collects the runs that cannot be read, with the reason.

    Raises
    ------
    UsageError
        Two generators have one name, or one has learned from held-out participants.
    NoInputError
        A directory does not exist.
    NoMatchError
        A directory holds no synthetic run.
    """
    compared: dict[str, tuple[Run, ...]] = {}
    for name, directory in directories.items():
        _check_folder("--compare", name, directory, reserved)
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
        compared |= judged_apart(name, runs)
    return compared


def find_judged(
    directories: Mapping[str, Path],
    real: Sequence[Run],
    reserved: Sequence[str],
    problems: dict[Path, str],
) -> dict[str, tuple[Run, ...]]:
    """Find the runs of other programs, which are named like the real ones.

    Parameters
    ----------
    directories : mapping of str to pathlib.Path
        Name → folder in the form of a BIDS dataset.
    real : sequence of Run
        Real runs that they may imitate.
    reserved : sequence of str
        Names of the other generators of the comparison.
    problems : dict
        Collects the images that cannot be used, with the reason.

    Raises
    ------
    UsageError
        Two generators have one name.
    NoInputError
        A directory does not exist.
    NoMatchError
        A directory holds no image that is named like a real run.
    """
    judged = {}
    for name, directory in directories.items():
        _check_folder("--synthetic", name, directory, reserved)
        runs = find_imitations(directory, real, problems)
        if not runs:
            first = real[0]
            told = "".join(f"\n  {reason}" for reason in list(problems.values())[:3])
            raise NoMatchError(
                f"--synthetic {directory} holds no image that can be used and is named like a real "
                f"run, such as sub-{first.participant}/func/{first.label}_bold.nii.gz.{told}"
            )
        judged[name] = runs
    return judged


def _check_folder(option: str, name: str, directory: Path, reserved: Sequence[str]) -> None:
    """Refuse the name of another generator, and a directory that does not exist."""
    if name in (*reserved, REAL, TRAINING) or not name:
        raise UsageError(
            f"{option} {name}={directory}: the name {name!r} is taken in the table; give another "
            "one, as NAME=DIR."
        )
    if not directory.is_dir():
        raise NoInputError(f"{option} {directory}: there is no such directory.")


def _role(run: Run) -> str:
    """Return the role of a synthetic run's participant in the training of its model."""
    return str(run.metadata[PROVENANCE_KEY].get("ParticipantRole", ""))
