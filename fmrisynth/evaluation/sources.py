"""Who is compared with whom: roles of participants, equal numbers of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.errors import UsageError
from fmrisynth.evaluation.maps import ordered_runs
from fmrisynth.evaluation.records import RunRecord
from fmrisynth.evaluation.result import REAL, TRAINING

__all__ = ["ByPerson", "assign_roles", "match_runs"]

ByPerson = dict[str, list[RunRecord]]

_LARGEST_TRAINING = 3
"""Training participants used, as a multiple of the held-out ones: more would add only time."""


def assign_roles(
    real_held_out: Sequence[Run],
    real_training: Sequence[Run],
    generators: Mapping[str, Sequence[Run]],
    rng: np.random.Generator,
    notices: list[str],
) -> tuple[list[Run], list[Run]]:
    """Decide which real runs are compared with and which make the ceilings."""
    reserved = {REAL, TRAINING} & set(generators)
    if reserved:
        raise UsageError(f"{reserved.pop()!r} names the real data; rename this generator")
    held_out = {run.participant for run in real_held_out}
    trained = {run.participant for run in real_training}
    if both := held_out & trained:
        raise UsageError(
            f"participant {sorted(both)[0]} is both held out and trained on; a comparison with "
            "it would prove nothing. Remove it from one side"
        )
    if not real_held_out and not real_training:
        raise UsageError("there is no real run to compare with")
    if not real_held_out:
        notices.append(
            "Nothing was held out: the synthetic runs are compared with the very "
            f"participant{'s' if len(trained) > 1 else ''} the model has learned from, so the "
            "figures say how well it reproduces them, not how well it generalises. There are "
            "no ceilings."
        )
        return list(real_training), []
    limit = _LARGEST_TRAINING * len(held_out)
    if len(trained) > limit:
        kept = set(rng.choice(sorted(trained), limit, replace=False))
        real_training = [run for run in real_training if run.participant in kept]
        notices.append(
            f"The ceilings rest on {limit} of the {len(trained)} training participants, drawn "
            "at random."
        )
    if not real_training:
        notices.append(
            "No real training run was given, so there are no ceilings other than split halves."
        )
    elif len(trained) < len(held_out):
        notices.append(
            f"There are fewer training participants ({len(trained)}) than held-out ones "
            f"({len(held_out)}): the ceilings come from random groups of {len(trained)} "
            "held-out participants, and are therefore too low."
        )
    if len(held_out) == 1:
        notices.append(
            "A single participant is held out, so no interval over participants can be given."
        )
    return list(real_held_out), list(real_training)


def match_runs(
    records: Sequence[RunRecord],
    reference: Sequence[Run],
    training: Sequence[Run],
    generators: Mapping[str, Sequence[Run]],
) -> dict[str, ByPerson]:
    """Sort records by source and participant, with as many runs of a task on each side."""
    remaining = iter(records)
    real = _by_person([next(remaining) for _ in reference])
    allowed = {
        (person, task): sum(r.run.task == task for r in runs)
        for person, runs in real.items()
        for task in {r.run.task for r in runs}
    }
    most = {task: max(n for (_, t), n in allowed.items() if t == task) for _, task in allowed}
    gathered = {REAL: real}
    trained = _by_person([next(remaining) for _ in training])
    gathered[TRAINING] = {person: _first_runs(runs, most) for person, runs in trained.items()}
    for name, runs in generators.items():
        made = _by_person([next(remaining) for _ in runs])
        gathered[name] = {
            person: _first_runs(
                made.get(person, []),
                {task: n for (who, task), n in allowed.items() if who == person},
            )
            for person in real
            if made.get(person)
        }
    return gathered


def _by_person(records: Sequence[RunRecord]) -> ByPerson:
    people: ByPerson = {}
    for record in records:
        people.setdefault(record.run.participant, []).append(record)
    return dict(sorted(people.items()))


def _first_runs(records: Sequence[RunRecord], allowed: Mapping[str, int]) -> list[RunRecord]:
    """Keep at most ``allowed[task]`` runs of each task."""
    kept = []
    left = dict(allowed)
    for record in ordered_runs(records):
        if left.get(record.run.task, 0) > 0:
            left[record.run.task] -= 1
            kept.append(record)
    return kept
