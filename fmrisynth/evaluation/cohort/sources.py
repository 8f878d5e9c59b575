"""Decide who is compared with whom: roles of participants, equal numbers of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.synthetic_sidecars import PROVENANCE_KEY
from fmrisynth.errors import UsageError
from fmrisynth.evaluation.cohort.maps import ordered_runs
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.runs.records import RunRecord
from fmrisynth.runtime.randomness import keyed_seed

__all__ = [
    "MOST_NEW",
    "MOST_SAMPLES",
    "ByParticipant",
    "Matched",
    "assign_roles",
    "limit_samples",
    "match_runs",
    "original_of",
    "runs_for_training",
    "runs_to_compare",
]

ByParticipant = dict[str, list[RunRecord]]

MOST_SAMPLES = 4
"""Samples of each run that are compared; further ones would add only time."""

MOST_NEW = 48
"""New participants that are compared: more would add only time."""

_LARGEST_TRAINING = 3
"""Training participants used, as a multiple of the held-out ones: more would add only time."""


def assign_roles(
    real_held_out: Sequence[Run],
    real_training: Sequence[Run],
    generators: Mapping[str, Sequence[Run]],
    seed: int,
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
            "estimates say how well it reproduces them, not how well it generalises. There are "
            "no ceilings."
        )
        return list(real_training), []
    limit = _LARGEST_TRAINING * len(held_out)
    if len(trained) > limit:
        order = sorted(trained, key=lambda name: keyed_seed(seed, "training participants", name))
        drawn = set(order[:limit])
        real_training = [run for run in real_training if run.participant in drawn]
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


@dataclass(frozen=True)
class Matched:
    """Runs by source, with as many of a task on each side, and the further samples.

    Attributes
    ----------
    participants : dict
        Source → participant → runs that are compared; of several samples of
        one run only the first, since they are no runs of their own.
    samples : dict
        Generator → participant → groups of the samples of one run, two or more each.
    """

    participants: dict[str, ByParticipant]
    samples: dict[str, dict[str, list[list[RunRecord]]]]

    def n_samples(self, name: str) -> int:
        """Count the samples that a generator has of every run that is compared."""
        compared = [r for records in self.participants[name].values() for r in records]
        return min((len(self._group_of(name, record)) for record in compared), default=1)

    def further_samples(self) -> list[Matched]:
        """Put the second sample of each run in the place of the first, then the third, and so on.

        Returns
        -------
        list of Matched
            The real sources, with the generators that have so many samples of
            every run that is compared.
        """
        counts = {name: self.n_samples(name) for name in self.samples}
        return [
            Matched(
                {name: self.participants[name] for name in (REAL, TRAINING)}
                | {
                    name: {
                        participant: [self._group_of(name, first)[number] for first in records]
                        for participant, records in self.participants[name].items()
                    }
                    for name, count in counts.items()
                    if count > number
                },
                {},
            )
            for number in range(1, max(counts.values(), default=1))
        ]

    def _group_of(self, name: str, first: RunRecord) -> list[RunRecord]:
        """Find all samples of a run by the first of them."""
        groups = self.samples[name].get(first.run.participant, [])
        return next((group for group in groups if group[0] is first), [first])


def original_of(run: Run) -> tuple[tuple[str, ...], int]:
    """Tell which real run a synthetic one repeats, and which sample of it this is.

    Samples are told apart by ``run-`` (`fmrisynth.bids.derivatives.synthetic_entities`):
    sample k of N of the run r is run (r − 1)·N + k, so that the number less k
    is the same for all samples of a run.

    Parameters
    ----------
    run : Run
        Synthetic run; the sidecar's provenance holds the number of the sample.

    Returns
    -------
    original : tuple of str
        The same for all samples of one run.
    sample : int
        From 1; 1 for a run that says nothing of samples.
    """
    provenance = run.metadata.get(PROVENANCE_KEY)
    sample = provenance.get("Sample") if isinstance(provenance, Mapping) else None
    number = run.entities.get("run", "")
    rest = tuple(f"{key}-{label}" for key, label in run.entities.items() if key != "run")
    if not isinstance(sample, int) or not number.isdecimal():
        return (*rest, f"run-{number}"), 1
    return (*rest, str(int(number) - sample)), sample


def limit_samples(runs: Sequence[Run], most: int = MOST_SAMPLES) -> list[Run]:
    """Keep the first samples of each run: further ones would add only time."""
    groups: dict[tuple[str, ...], list[tuple[int, Run]]] = {}
    for run in runs:
        original, sample = original_of(run)
        groups.setdefault(original, []).append((sample, run))
    return [
        run
        for group in groups.values()
        for _, run in sorted(group, key=lambda numbered: numbered[0])[:most]
    ]


def runs_to_compare(runs: Sequence[Run], participants: set[str]) -> list[Run]:
    """Choose a generator's runs of the real participants, else those of its new participants.

    Parameters
    ----------
    runs : sequence of Run
        Synthetic runs.
    participants : set of str
        Real participants who are compared with.

    Returns
    -------
    list of Run
        The first samples of each; of more than `MOST_NEW` new participants the first.
    """
    own = [run for run in runs if run.participant in participants and not run.new]
    if own:
        return limit_samples(own)
    new = [run for run in runs if run.new]
    first = set(sorted({run.participant for run in new})[:MOST_NEW])
    return limit_samples([run for run in new if run.participant in first])


def runs_for_training(runs: Sequence[Run], training: Sequence[Run], most: int) -> list[Run]:
    """Choose a generator's runs for some of the training participants: the first of their samples.

    Parameters
    ----------
    runs : sequence of Run
        Synthetic runs.
    training : sequence of Run
        Real runs of training participants.
    most : int
        Number of participants, at most: more would add only time.
    """
    known = sorted({run.participant for run in training} & {run.participant for run in runs})
    chosen = set(known[:most])
    return limit_samples([run for run in runs if run.participant in chosen], most=1)


def match_runs(
    real_runs: Sequence[RunRecord],
    training: Sequence[RunRecord],
    generators: Mapping[str, Sequence[RunRecord]],
) -> Matched:
    """Sort records by source and participant, with as many runs of a task on each side.

    A new participant stands beside nobody, and keeps as many runs as a real one has at most.
    """
    real = _by_participant(real_runs)
    allowed = {
        (participant, task): sum(r.run.task == task for r in runs)
        for participant, runs in real.items()
        for task in {r.run.task for r in runs}
    }
    most = {task: max(n for (_, t), n in allowed.items() if t == task) for _, task in allowed}
    participants = {REAL: real}
    participants[TRAINING] = {
        participant: _first_runs(runs, most)
        for participant, runs in _by_participant(training).items()
    }
    samples = {}
    for name, records in generators.items():
        groups = {
            participant: _samples_of(runs)
            for participant, runs in _by_participant(records).items()
            if participant in real or runs[0].run.new
        }
        participants[name] = {
            participant: _first_runs(
                [group[0] for group in groups[participant]],
                {task: n for (who, task), n in allowed.items() if who == participant}
                if participant in real
                else most,
            )
            for participant in (*real, *(p for p in groups if p not in real))
            if participant in groups
        }
        samples[name] = {
            participant: several
            for participant, own in groups.items()
            if (several := [group for group in own if len(group) > 1])
        }
    return Matched(participants, samples)


def _samples_of(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Group the samples of each run, in their order."""
    groups: dict[tuple[str, ...], list[tuple[int, RunRecord]]] = {}
    for record in records:
        original, sample = original_of(record.run)
        groups.setdefault(original, []).append((sample, record))
    return [
        [record for _, record in sorted(group, key=lambda numbered: numbered[0])]
        for group in groups.values()
    ]


def _by_participant(records: Sequence[RunRecord]) -> ByParticipant:
    participants: ByParticipant = {}
    for record in records:
        participants.setdefault(record.run.participant, []).append(record)
    return dict(sorted(participants.items()))


def _first_runs(records: Sequence[RunRecord], allowed: Mapping[str, int]) -> list[RunRecord]:
    """Keep at most ``allowed[task]`` runs of each task."""
    chosen = []
    left = dict(allowed)
    for record in ordered_runs(records):
        if left.get(record.run.task, 0) > 0:
            left[record.run.task] -= 1
            chosen.append(record)
    return chosen
