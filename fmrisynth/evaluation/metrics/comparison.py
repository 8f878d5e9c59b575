"""Bundle what a family of metrics reads: one source beside the real data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from fmrisynth.evaluation.cohort.cohort import Cohort
from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.maps import MapTable
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.metrics.measurements import Measurements
from fmrisynth.evaluation.runs.records import RunRecord
from fmrisynth.runtime.randomness import keyed_generator

__all__ = ["Comparison"]

T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """One source beside the real data.

    Attributes
    ----------
    cohort : Cohort
        Runs and maps of all sources.
    measurements : Measurements
        What is measured once for all sources.
    source : str
        Name of the generator, or ``REAL`` for real data as their own generator.
    level : Level
        Conditions that are compared; of interest to families by level alone.
    seed : int
        The user's seed.
    family : str
        Family of metrics that is computed; random numbers are keyed by it.
    references : dict
        What `once` has computed.
    """

    cohort: Cohort
    measurements: Measurements
    source: str
    level: Level
    seed: int
    family: str = ""
    references: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def runs(self) -> Sequence[RunRecord]:
        """Runs of the source."""
        return self.cohort.runs[self.source]

    @property
    def real_runs(self) -> Sequence[RunRecord]:
        """Real held-out runs of the participants that the source has runs of."""
        return self.cohort.real_runs(self.source)

    @property
    def training_runs(self) -> Sequence[RunRecord]:
        """Real runs of training participants; may be empty."""
        return self.cohort.runs[TRAINING]

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Return maps of the source and of the same real participants, each (P, C, N)."""
        tables = self.cohort.tables
        synthetic = tables[self.source].whole()
        real = self.cohort.real_beside[self.source].whole()
        return self.level.of(synthetic), self.level.of(real[self.rows])

    def reference_maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Return maps of the same real participants, (P, C, N), and of training ones, (Q, C, N)."""
        tables = self.cohort.tables
        return (
            self.level.of(tables[REAL].whole()[self.rows]),
            self.level.of(tables[TRAINING].whole()),
        )

    def supervoxel_tables(self) -> tuple[MapTable, MapTable, MapTable | None]:
        """Return maps on supervoxels: of the source, real held-out and real training ones."""
        tables = self.cohort.supervoxel_tables
        return tables[self.source], tables[REAL], self.cohort.training_supervoxels

    @property
    def rows(self) -> list[int]:
        """Rows of the source's participants among the real held-out ones."""
        return self.cohort.real_rows(self.source)

    def random(self, purpose: str) -> np.random.Generator:
        """Make the random numbers of one purpose, for this source alone."""
        return keyed_generator(self.seed, *self._key, self.source, purpose)

    def shared_random(self, purpose: str) -> np.random.Generator:
        """Make the random numbers of a reference, the same beside every source."""
        return keyed_generator(self.seed, *self._key, purpose)

    def once(self, what: str, compute: Callable[[], T]) -> T:
        """Compute a reference to real data once for all generators of the same participants.

        Parameters
        ----------
        what : str
            Name of the reference.
        compute : callable
            Computes it; may draw from `shared_random`, and must not depend on
            the source beyond its participants.

        Returns
        -------
        object
            What ``compute`` returned.
        """
        participants = self.cohort.tables[self.source].participants
        key = (*self._key, self.source == REAL, participants, what)
        if key not in self.references:
            self.references[key] = compute()
        return cast("T", self.references[key])

    @property
    def _key(self) -> tuple[str, str]:
        return self.family, self.level.suffix
