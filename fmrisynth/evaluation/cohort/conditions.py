"""Decide which conditions are compared: tasks, else trial types; and the user's contrasts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fmrisynth.errors import UsageError
from fmrisynth.evaluation.cohort.contrasts import Contrast
from fmrisynth.evaluation.cohort.map_table import MapTable
from fmrisynth.evaluation.cohort.maps import merge, weigh
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["Conditions", "Level", "find_conditions", "with_contrasts"]


@dataclass(frozen=True)
class Level:
    """A way to make maps of conditions from maps of trial types.

    Attributes
    ----------
    suffix : str
        Ending of the metrics' names: none for the headline, ``_trial_type``, ``_contrast``.
    names : tuple of str
        The ``C`` conditions.
    weights : ndarray of shape (C, K)
        Which trial types make up each condition, with what weight.
    """

    suffix: str
    names: tuple[str, ...]
    weights: np.ndarray

    def of(self, maps: np.ndarray) -> np.ndarray:
        """Make maps of the conditions, (P, C, N), from those of trial types, (P, K, N).

        A condition is the mean of those of its trial types that there are; a
        contrast is a weighted sum, which needs all of them.
        """
        return (weigh if self.suffix == "_contrast" else merge)(maps, self.weights)

    def voxels(self, table: MapTable, condition: int, half: int | None = None) -> np.ndarray:
        """Read maps of one condition in voxels, (P, V), of all runs or of one half of them."""
        weights = self.weights[condition]
        one = Level(self.suffix, (self.names[condition],), weights[None, weights != 0])
        return table.condition_voxels(weights, one.of, half)

    def metric(self, name: str) -> str:
        """Give a metric its name on this level: ``corr[x]`` → ``corr_contrast[x]``."""
        base, bracket, rest = name.partition("[")
        return f"{base}{self.suffix}{bracket}{rest}"


@dataclass(frozen=True)
class Conditions:
    """Hold the headline conditions, the trial types that make them up, and the user's contrasts.

    Attributes
    ----------
    names : tuple of str
        The ``C`` headline conditions.
    trial_types : tuple of (str, str)
        The ``K`` pairs of task and trial type.
    membership : ndarray of shape (C, K)
        1 where a trial type belongs to a condition. A condition's map is the
        mean over its trial types against the implicit baseline.
    contrasts : tuple of str
        Names of the ``M`` contrasts.
    weights : ndarray of shape (M, K)
        Weight of each trial type in each contrast.
    """

    names: tuple[str, ...]
    trial_types: tuple[tuple[str, str], ...]
    membership: np.ndarray
    contrasts: tuple[str, ...] = ()
    weights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def headline(self) -> Level:
        """The level of the conditions themselves."""
        return Level("", self.names, self.membership)

    def levels(self) -> Iterator[Level]:
        """Yield every level on which maps are compared.

        The level of trial types is left out where it is the headline itself.
        """
        yield self.headline
        if len(self.names) != len(self.trial_types):
            labels = tuple(f"{task}/{trial_type}" for task, trial_type in self.trial_types)
            yield Level("_trial_type", labels, np.eye(len(labels)))
        if self.contrasts:
            yield Level("_contrast", self.contrasts, self.weights)

    def members(self, condition: int) -> list[tuple[str, str]]:
        """Task and trial types of one headline condition."""
        rows = np.flatnonzero(self.membership[condition])
        return [self.trial_types[k] for k in rows]


def find_conditions(records: Sequence[RunRecord]) -> Conditions:
    """Find the conditions of a dataset from its real runs.

    Parameters
    ----------
    records : sequence of RunRecord
        Real runs that are compared with.

    Returns
    -------
    Conditions
    """
    pairs = sorted({(r.run.task, name) for r in records for name in r.trial_types})
    tasks = sorted({task for task, _ in pairs})
    if len(tasks) >= 2:
        membership = np.array([[float(task == own) for task, _ in pairs] for own in tasks])
        return Conditions(tuple(tasks), tuple(pairs), membership)
    return Conditions(tuple(name for _, name in pairs), tuple(pairs), np.eye(len(pairs)))


def with_contrasts(conditions: Conditions, contrasts: Sequence[Contrast]) -> Conditions:
    """Add the contrasts that the user asks for.

    Parameters
    ----------
    conditions : Conditions
        What the dataset has.
    contrasts : sequence of Contrast
        Weights over the trial types of one task each.

    Returns
    -------
    Conditions
        A contrast keeps its name where no other has it, else it is called
        ``task/name``.

    Raises
    ------
    UsageError
        When a contrast names a task or trial type that the real runs do not
        have; the message lists those there are.
    """
    if not contrasts:
        return conditions
    known: dict[str, list[str]] = {}
    for task, trial_type in conditions.trial_types:
        known.setdefault(task, []).append(trial_type)
    weights = np.array([_weights_of(contrast, conditions, known) for contrast in contrasts])
    shared = Counter(contrast.name for contrast in contrasts)
    names = tuple(c.name if shared[c.name] == 1 else f"{c.task}/{c.name}" for c in contrasts)
    if repeated := [name for name, n in Counter(names).items() if n > 1]:
        raise UsageError(f"the contrast {repeated[0]!r} is given twice; give each its own name")
    return Conditions(
        conditions.names, conditions.trial_types, conditions.membership, names, weights
    )


def _weights_of(
    contrast: Contrast, conditions: Conditions, known: Mapping[str, Sequence[str]]
) -> list[float]:
    if contrast.task not in known:
        raise UsageError(
            f"the contrast {contrast.name!r} is of the task {contrast.task!r}, but the runs that "
            f"are compared have {', '.join(known)}"
        )
    unknown = [name for name in contrast.weights if name not in known[contrast.task]]
    if unknown:
        raise UsageError(
            f"the contrast {contrast.name!r} weighs the trial type {unknown[0]!r}, but the runs of "
            f"the task {contrast.task!r} have {', '.join(known[contrast.task])}"
        )
    if not any(contrast.weights.values()):
        raise UsageError(f"the contrast {contrast.name!r} has no weight other than 0")
    return [
        float(contrast.weights.get(trial_type, 0.0)) if task == contrast.task else 0.0
        for task, trial_type in conditions.trial_types
    ]
