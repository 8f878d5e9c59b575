"""Diversity: how far repetitions of one thing differ, in synthetic and in real data.

A person who does a task twice gives two different runs. A generator must not
write the same run again: neither as another sample of a run, nor as another
run of that person and task. Differences are those of effect maps on blocks of
12 mm, of which noise and changes of the response both have their part.

Array legend: ``K`` trial types, ``B`` blocks, ``P`` participants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from fmrisynth.evaluation.cohort.blocks import block_effects, residual_series
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    Figure,
    bootstrap_counts,
    finite_mean,
    interval,
)
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["compare_diversity", "retests"]

Groups = Mapping[str, Sequence[Sequence[RunRecord]]]
"""Participant → groups of runs that repeat each other."""


def retests(records: Iterable[RunRecord]) -> dict[str, list[list[RunRecord]]]:
    """Group the runs of each participant and task.

    Parameters
    ----------
    records : iterable of RunRecord
        Runs of one source.

    Returns
    -------
    dict
        Participant → groups of two or more runs.
    """
    groups: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        mine = groups.setdefault(record.run.participant, {})
        mine.setdefault(record.run.task, []).append(record)
    return {
        person: several
        for person, mine in groups.items()
        if (several := [group for group in mine.values() if len(group) > 1])
    }


def compare_diversity(
    samples: Groups,
    made: Sequence[RunRecord],
    real: Sequence[RunRecord],
    training: Sequence[RunRecord],
    keys: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Figures of diversity of a generator beside the real test-retest difference.

    Participants are what is resampled: samples of a run are no people of their own.

    Parameters
    ----------
    samples : mapping
        Participant → groups of synthetic samples of one run.
    made, real, training : sequence of RunRecord
        Synthetic, real held-out and real training runs.
    keys : ndarray of int, shape (B, 3)
        Blocks that all runs have.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        ``diversity_runs_ratio``: variance of the effects between runs of one
        person and task, synthetic / real; ``diversity_samples_ratio``: the
        same between samples of one run; both with the ratio of training to
        held-out people as ceiling and 0, the same run again, as floor.
        ``sample_correlation``: correlation between samples of one run of what
        is not evoked; its ceiling is that of two real runs of one person, its
        floor 1. Figures of samples only where there are several.
    """
    truth = _per_person(retests(real), keys)
    reference = _per_person(retests(training), keys)
    figures = {}
    for name, groups in (("runs", retests(made)), ("samples", samples)):
        found = _per_person(groups, keys)
        people = [person for person in truth if person in found]
        if not people:
            continue
        ours = np.array([found[person] for person in people])
        theirs = np.array([truth[person] for person in people])
        counts = bootstrap_counts(len(people), rng)
        value = _ratio(ours[:, 0], theirs[:, 0])
        spread = np.array([_ratio(n * ours[:, 0], n * theirs[:, 0]) for n in counts])
        others = np.array(list(reference.values())).reshape(-1, 2)
        ceiling = _ratio(
            np.full(len(others), finite_mean(others[:, 0])),
            np.full(len(others), finite_mean(theirs[:, 0])),
        )
        limits = interval(value, spread, (0.0, np.inf))
        figures[f"diversity_{name}_ratio"] = Figure(value, *limits, ceiling, 0.0)
        if name == "samples":
            value = finite_mean(ours[:, 1])
            spread = counts @ ours[:, 1] / len(people)
            limits = interval(value, spread, (-1.0, 1.0))
            figures["sample_correlation"] = Figure(value, *limits, finite_mean(theirs[:, 1]), 1.0)
    return figures


def _per_person(groups: Groups, keys: np.ndarray) -> dict[str, tuple[float, float]]:
    """Variance of effects and correlation of residuals between each person's repetitions."""
    found = {}
    for person, several in groups.items():
        differences, correlations = [], []
        for group in several:
            effects = [_effects(record, keys) for record in group]
            residuals = [_residual(record, keys) for record in group]
            for a, b in combinations(range(len(group)), 2):
                differences.append(_variance(effects[a], effects[b]))
                correlations.append(_correlation(residuals[a], residuals[b]))
        found[person] = finite_mean(differences), finite_mean(correlations)
    return found


def _effects(record: RunRecord, keys: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(record.trial_types, block_effects(record, keys), strict=True))


def _variance(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    """Variance of a single run's effect about the person's own: half the squared difference."""
    shared = [np.mean((first[name] - second[name]) ** 2) / 2 for name in first if name in second]
    return finite_mean(shared)


def _residual(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Residual series with every block scaled alike: (B, T)."""
    series = residual_series(record, keys)
    series = series - series.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(series, axis=1, keepdims=True)
    return series / np.where(norm > 0, norm, 1.0)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.shape != second.shape or not len(first):
        return NAN
    return float(np.einsum("bt,bt->", first, second) / len(first))


def _ratio(above: np.ndarray, below: np.ndarray) -> float:
    both = np.isfinite(above) & np.isfinite(below)
    total = below[both].sum()
    return float(above[both].sum() / total) if total > 0 else NAN
