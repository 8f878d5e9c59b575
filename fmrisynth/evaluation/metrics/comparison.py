"""Bundle what a family of metrics reads: one source beside the real data."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np

from fmrisynth.evaluation.cohort.cohort import Cohort
from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.map_table import MapTable
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.resampling import N_BOOTSTRAP, bootstrap_counts
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

    @property
    def unpaired(self) -> bool:
        """Whether the source's participants are new, and none stands beside a real one."""
        return self.source != REAL and self.cohort.unpaired(self.source)

    @property
    def n_participants(self) -> int:
        """Number of participants that intervals rest on: of the source, or fewer real ones."""
        return min(len(self.cohort.participants[self.source]), len(self.rows))

    def draws(self, purpose: str, n_samples: int = N_BOOTSTRAP) -> tuple[np.ndarray, np.ndarray]:
        """Draw bootstrap samples of the source's and of the real participants, see `draws_of`."""
        own = len(self.cohort.participants[self.source])
        return self.draws_of(own, len(self.rows), purpose, n_samples)

    def draws_of(
        self, n_own: int, n_real: int, purpose: str, n_samples: int = N_BOOTSTRAP
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw bootstrap samples of participants of the source and of real ones, as counts.

        Returns
        -------
        own, real : ndarray of int of shape (n_samples, P) and (n_samples, Q)
            One and the same, unless the source's participants are new: then two
            independent ones. Without rows where one side has a single participant.
        """
        real = bootstrap_counts(n_real, self.random(purpose), n_samples)
        if not self.unpaired:
            return real, real
        own = bootstrap_counts(n_own, self.random(f"{purpose}, new participants"), n_samples)
        number = min(len(own), len(real))
        return own[:number], real[:number]

    def shared_rows(
        self, own: Mapping[str, T], real: Mapping[str, T]
    ) -> tuple[list[T], list[T]] | None:
        """Take what is compared of each participant: of the same ones, or of all beside new ones.

        Parameters
        ----------
        own, real : mapping
            Participant → anything, of the source and of real data.

        Returns
        -------
        tuple of list, or None
            Those of the source and the real ones; None where there is nothing to compare.
        """
        if self.unpaired:
            return (list(own.values()), list(real.values())) if own and real else None
        names = [name for name in real if name in own]
        return ([own[n] for n in names], [real[n] for n in names]) if names else None

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Return maps of the source, (P, C, N), and of the real participants, (Q, C, N).

        They are the same participants, or all real ones beside new ones.
        """
        tables = self.cohort.tables
        real = self.cohort.real_beside[self.source]
        return tables[self.source].whole(self.level.of), real.whole(self.level.of)[self.rows]

    def reference_maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Return maps of the same real participants, (P, C, N), and of training ones, (Q, C, N)."""
        tables = self.cohort.tables
        return (
            tables[REAL].whole(self.level.of)[self.rows],
            tables[TRAINING].whole(self.level.of),
        )

    def supervoxel_tables(self) -> tuple[MapTable, MapTable, MapTable | None]:
        """Return maps on supervoxels: of the source, real held-out and real training ones."""
        tables = self.cohort.supervoxel_tables
        return tables[self.source], tables[REAL], self.cohort.training_supervoxels

    @property
    def rows(self) -> list[int]:
        """Rows of the real held-out participants whom the source's are compared with."""
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
