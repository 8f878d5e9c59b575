"""Which conditions are compared: tasks where there are several, else trial types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.evaluation.records import RunRecord

__all__ = ["Conditions", "find_conditions"]


@dataclass(frozen=True)
class Conditions:
    """The headline conditions and the trial types they are made of.

    Attributes
    ----------
    names : tuple of str
        The ``C`` headline conditions.
    trial_types : tuple of (str, str)
        The ``K`` pairs of task and trial type.
    membership : ndarray, shape (C, K)
        1 where a trial type belongs to a condition. A condition's map is the
        mean over its trial types against the implicit baseline.
    """

    names: tuple[str, ...]
    trial_types: tuple[tuple[str, str], ...]
    membership: np.ndarray

    def levels(self) -> Iterator[tuple[str, tuple[str, ...], np.ndarray]]:
        """Yield the suffix of the metrics' names, the conditions and the membership of each level.

        The level of trial types is left out where it is the headline itself.
        """
        yield "", self.names, self.membership
        if len(self.names) != len(self.trial_types):
            labels = tuple(f"{task}/{trial_type}" for task, trial_type in self.trial_types)
            yield "_trial_type", labels, np.eye(len(labels))

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
