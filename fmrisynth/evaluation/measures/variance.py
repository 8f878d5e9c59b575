"""Measure by what runs differ: participant, phase encoding and task.

What is compared are effect maps and connectivity. Mean images are not: a synthetic run has the
one of the run that it imitates, so that their shares of variance agree whatever a generator does.

Legend: R rows (runs, or trial types of runs), N numbers of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from fmrisynth.bids.pieces import slices
from fmrisynth.evaluation.cohort.supervoxels import supervoxel_effects
from fmrisynth.evaluation.measures.networks import Networks
from fmrisynth.evaluation.measures.resampling import NAN
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["EFFECT_FACTORS", "NETWORK_FACTORS", "Rows", "effect_rows", "network_rows"]

EFFECT_FACTORS = ("participant", "phase_encoding", "trial_type")
NETWORK_FACTORS = ("participant", "phase_encoding", "task")
"""The factors of each decomposition."""

_AT_ONCE = 128  # numbers of each row, of which memory holds copies


@dataclass(frozen=True)
class Rows:
    """Vectors, labelled by factors.

    Attributes
    ----------
    values : ndarray of shape (R, N)
        The rows; every sum over them is of double precision.
    levels : mapping
        Factor → level of each row, shape (R,).
    """

    values: np.ndarray
    levels: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, rows: np.ndarray, levels: Mapping[str, Sequence[str]]) -> Rows:
        """Build from rows (R, N) and the level of each."""
        return cls(np.asarray(rows), {name: np.array(of, str) for name, of in levels.items()})

    def shuffled(self, factor: str, rng: np.random.Generator) -> np.ndarray:
        """Draw an order of the rows that keeps the levels of all other factors: (R,)."""
        others = [levels for name, levels in self.levels.items() if name != factor]
        _, cells = np.unique(np.stack(others), axis=1, return_inverse=True)
        order = np.arange(len(self.values))
        for cell in np.unique(cells):
            rows = np.flatnonzero(cells.ravel() == cell)
            order[rows] = rng.permutation(rows)
        return order

    def share(
        self,
        factor: str,
        *,
        weights: np.ndarray | None = None,
        order: np.ndarray | None = None,
    ) -> float:
        """Compute the share of the variance of the rows that a factor explains by itself.

        It is the sum of squares between the levels of the factor over the total one (η²).

        Parameters
        ----------
        factor : str
            One of `levels`.
        weights : ndarray of shape (R,), optional
            How often each row's participant is drawn in a bootstrap sample;
            one that is drawn twice counts as two participants.
        order : ndarray of int of shape (R,), optional
            Labels are taken from these rows instead: shuffled ones.

        Returns
        -------
        float
            NaN where nothing varies, or the factor has a single level.
        """
        n = np.ones(len(self.values)) if weights is None else np.asarray(weights, dtype=float)
        levels = self.levels[factor] if order is None else self.levels[factor][order]
        _, level = np.unique(levels, return_inverse=True)
        numbers = np.bincount(level)
        if len(numbers) < 2 or not n.sum() > 0:
            return NAN
        grand = float(np.square(self._sums(n, np.zeros_like(level))).sum()) / n.sum()
        whole = float(n @ self._squares) - grand
        # Copies of a participant are levels of their own in this factor, not in the others.
        copies = factor == "participant"
        times = np.bincount(level, n) / numbers if copies else np.ones(len(numbers))
        of = np.ones(len(level)) if copies else n
        size = np.bincount(level, of)
        squares = np.square(self._sums(of, level)).sum(axis=1)
        between = float(times @ np.divide(squares, size, out=np.zeros_like(size), where=size > 0))
        return float((between - grand) / whole) if whole > 0 else NAN

    def _sums(self, weights: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Add up the weighted rows of each level: (L, N).

        Inner products of all pairs of rows would tell the same, but their number grows with the
        square of that of the runs.
        """
        rows = np.arange(len(level))
        chosen = sparse.csr_array((weights, (level, rows)), shape=(level.max() + 1, len(level)))
        sums = np.empty((chosen.shape[0], self.values.shape[1]))
        for part in slices(sums.shape[1], _AT_ONCE):
            sums[:, part] = chosen @ self.values[:, part]
        return sums

    @cached_property
    def _squares(self) -> np.ndarray:
        """Squared norm of each row."""
        return np.einsum("rn,rn->r", self.values, self.values, dtype=np.float64)


def effect_rows(records: Sequence[RunRecord], keys: np.ndarray) -> Rows:
    """Collect the effect map of each trial type in each run.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.
    keys : ndarray of int of shape (B, 3)
        Supervoxels that are compared.

    Returns
    -------
    Rows
        With the levels `EFFECT_FACTORS`; trial types of different tasks differ.
    """
    n_rows = sum(len(record.trial_types) for record in records)
    maps = np.empty((n_rows, len(keys)), dtype=np.float32)
    levels: list[tuple[str, ...]] = []
    for record in records:
        for trial_type, effect in zip(
            record.trial_types, supervoxel_effects(record, keys), strict=True
        ):
            maps[len(levels)] = effect
            run = record.run
            levels.append((run.participant, run.phase_encoding, f"{run.task}/{trial_type}"))
    return Rows.of(
        maps, {name: [row[i] for row in levels] for i, name in enumerate(EFFECT_FACTORS)}
    )


def network_rows(records: Sequence[RunRecord], networks: Networks) -> Rows:
    """Collect the connectivity of each run.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.
    networks : Networks
        Of the same runs, in their order.

    Returns
    -------
    Rows
        With the levels `NETWORK_FACTORS`.
    """
    levels = [(r.run.participant, r.run.phase_encoding, r.run.task) for r in records]
    return Rows.of(
        networks.edges,
        {name: [row[i] for row in levels] for i, name in enumerate(NETWORK_FACTORS)},
    )
