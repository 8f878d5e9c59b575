"""Bundle what a family of metrics reads: one source beside the real data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fmrisynth.evaluation.cohort.cohort import Cohort
from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.maps import MapTable
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.metrics.measurements import Measurements
from fmrisynth.evaluation.runs.records import RunRecord

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
    rng : numpy.random.Generator
        Source of randomness.
    """

    cohort: Cohort
    measurements: Measurements
    source: str
    level: Level
    rng: np.random.Generator

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
        synthetic, real = tables[self.source].whole(), tables[REAL].whole()
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
        """Give the random numbers of one purpose."""
        return self.rng

    def shared_random(self, purpose: str) -> np.random.Generator:
        """Give the random numbers of a reference that does not depend on the source."""
        return self.rng

    def once(self, what: str, compute: Callable[[], T]) -> T:
        """Compute a reference that does not depend on the source."""
        return compute()
