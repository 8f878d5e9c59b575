"""Measure by what runs differ: participant, phase encoding and task.

What is compared are effect maps and connectivity. Mean images are not: a synthetic run has the
one of the run that it imitates, so that their shares of variance agree whatever a generator does.

Legend: R rows (runs, or trial types of runs), N numbers of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.evaluation.cohort.supervoxels import supervoxel_effects
from fmrisynth.evaluation.measures.networks import Networks
from fmrisynth.evaluation.measures.resampling import NAN
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["EFFECT_FACTORS", "NETWORK_FACTORS", "Rows", "effect_rows", "network_rows"]

EFFECT_FACTORS = ("participant", "phase_encoding", "trial_type")
NETWORK_FACTORS = ("participant", "phase_encoding", "task")
"""The factors of each decomposition."""


@dataclass(frozen=True)
class Rows:
    """Vectors by their inner products, labelled by factors.

    Attributes
    ----------
    products : ndarray of shape (R, R)
        Inner products of the rows.
    levels : mapping
        Factor → level of each row, shape (R,).
    """

    products: np.ndarray
    levels: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, rows: np.ndarray, levels: Mapping[str, Sequence[str]]) -> Rows:
        """Build from rows (R, N) and the level of each."""
        scaled = np.asarray(rows, dtype=np.float64)
        return cls(scaled @ scaled.T, {name: np.array(of, str) for name, of in levels.items()})

    def shuffled(self, factor: str, rng: np.random.Generator) -> np.ndarray:
        """Draw an order of the rows that keeps the levels of all other factors: (R,)."""
        others = [levels for name, levels in self.levels.items() if name != factor]
        _, cells = np.unique(np.stack(others), axis=1, return_inverse=True)
        order = np.arange(len(self.products))
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
        n = np.ones(len(self.products)) if weights is None else weights
        levels = self.levels[factor] if order is None else self.levels[factor][order]
        if len(np.unique(levels)) < 2 or not n.sum() > 0:
            return NAN
        grand = float(n @ self.products @ n) / n.sum()
        whole = float(n @ np.diag(self.products)) - grand
        between = 0.0
        for level in np.unique(levels):
            # Copies of a participant are levels of their own in this factor, not in the others.
            chosen = levels == level
            of = np.ones(int(chosen.sum())) if factor == "participant" else n[chosen]
            times = float(n[chosen].mean()) if factor == "participant" else 1.0
            if of.sum() > 0:
                within = self.products[np.ix_(chosen, chosen)]
                between += times * float(of @ within @ of) / of.sum()
        return float((between - grand) / whole) if whole > 0 else NAN


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
    maps, levels = [], []
    for record in records:
        for trial_type, effect in zip(
            record.trial_types, supervoxel_effects(record, keys), strict=True
        ):
            maps.append(effect)
            run = record.run
            levels.append((run.participant, run.phase_encoding, f"{run.task}/{trial_type}"))
    return Rows.of(
        np.array(maps).reshape(len(maps), -1),
        {name: [row[i] for row in levels] for i, name in enumerate(EFFECT_FACTORS)},
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
