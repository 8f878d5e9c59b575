"""Measure by what volumes differ: participant, phase encoding and task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.evaluation.cohort.maps import on_mask
from fmrisynth.evaluation.measures.resampling import NAN
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["FACTORS", "RunVectors", "run_vectors", "variance_shares"]

_MOST_VOXELS = 4_000

FACTORS: dict[str, Callable[[RunRecord], str]] = {
    "participant": lambda record: record.run.participant,
    "phase_encoding": lambda record: record.run.phase_encoding,
    "task": lambda record: record.run.task,
}
"""The factors of the decomposition and the level of each for a run."""


@dataclass(frozen=True)
class RunVectors:
    """Runs' mean images by their inner products, on some of the voxels.

    Attributes
    ----------
    products : ndarray of shape (R, R)
        Inner products of the runs' scaled mean images.
    noise : ndarray of shape (R,)
        Variance over time within each run, summed over voxels.
    volumes : ndarray of shape (R,)
        Number of volumes of each run.
    levels : mapping
        Factor → level of each run, shape (R,).
    """

    products: np.ndarray
    noise: np.ndarray
    volumes: np.ndarray
    levels: Mapping[str, np.ndarray]

    def shuffled(self, factor: str, rng: np.random.Generator) -> np.ndarray:
        """Draw an order of the runs that keeps the levels of all other factors: (R,)."""
        others = [levels for name, levels in self.levels.items() if name != factor]
        _, cells = np.unique(np.stack(others), axis=1, return_inverse=True)
        order = np.arange(len(self.volumes))
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
        """Share of a factor, as `variance_shares` has it.

        Parameters
        ----------
        factor : str
            One of `FACTORS`.
        weights : ndarray of shape (R,), optional
            How often each run's participant is drawn in a bootstrap sample;
            one that is drawn twice counts as two participants.
        order : ndarray of int of shape (R,), optional
            Labels are taken from these runs instead: shuffled ones.

        Returns
        -------
        float
            NaN where nothing varies.
        """
        drawn = np.ones(len(self.volumes)) if weights is None else weights
        levels = self.levels[factor] if order is None else self.levels[factor][order]
        n = drawn * self.volumes
        grand = float(n @ self.products @ n) / n.sum()
        whole = float(n @ (np.diag(self.products) + self.noise)) - grand
        between = 0.0
        for level in np.unique(levels):
            # Copies of a participant are levels of their own in this factor, not in the others.
            chosen = levels == level
            of = (self.volumes if factor == "participant" else n)[chosen]
            times = float(drawn[chosen].mean()) if factor == "participant" else 1.0
            if of.sum() > 0:
                within = self.products[np.ix_(chosen, chosen)]
                between += times * float(of @ within @ of) / of.sum()
        return (between - grand) / whole if whole > 0 else NAN


def variance_shares(records: Sequence[RunRecord], mask: np.ndarray) -> dict[str, float]:
    """Share of the variance of all volumes that each factor explains by itself.

    Volumes are scaled by the median of their run's mean image. The share of a
    factor is its sum of squares between levels over the total one (η²), in
    which the variance over time within runs has its part.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.
    mask : ndarray of bool of shape (X, Y, Z)
        Common mask.

    Returns
    -------
    dict
        Factor → share, for the factors with at least two levels.
    """
    sums: dict[str, dict[str, np.ndarray]] = {name: {} for name in FACTORS}
    counts: dict[str, dict[str, int]] = {name: {} for name in FACTORS}
    total = np.zeros(int(mask.sum()))
    squares, n = 0.0, 0
    for record in records:  # one at a time: only the levels' sums are kept
        own, volumes = record.array("mask"), record.run.n_volumes
        raw = record.array("mean")
        mean = on_mask((raw / np.median(raw)).astype(np.float64), own, mask)
        noise = mean * on_mask(record.array("sd").astype(np.float64), own, mask) / 100.0
        squares += volumes * float(mean @ mean + noise @ noise)
        total += volumes * mean
        n += volumes
        for name, level_of in FACTORS.items():
            level = level_of(record)
            sums[name][level] = sums[name].get(level, 0.0) + volumes * mean
            counts[name][level] = counts[name].get(level, 0) + volumes
    grand = float(total @ total) / max(n, 1)
    whole = squares - grand
    shares = {}
    for name, levels in sums.items():
        if len(levels) > 1 and whole > 0:
            between = sum(float(s @ s) / counts[name][level] for level, s in levels.items())
            shares[name] = (between - grand) / whole
    return shares


def run_vectors(records: Sequence[RunRecord], mask: np.ndarray) -> RunVectors:
    """Reduce runs to a few voxels, for intervals and floors.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.
    mask : ndarray of bool of shape (X, Y, Z)
        Common mask.

    Returns
    -------
    RunVectors
    """
    step = max(1, int(mask.sum()) // _MOST_VOXELS)
    rows, noise = [], []
    for record in records:
        own, raw = record.array("mask"), record.array("mean")
        mean = on_mask((raw / np.median(raw)).astype(np.float64), own, mask)[::step]
        sd = on_mask(record.array("sd").astype(np.float64), own, mask)[::step]
        rows.append(mean)
        noise.append(float(np.sum((mean * sd / 100.0) ** 2)))
    means = np.array(rows)
    return RunVectors(
        means @ means.T,
        np.array(noise),
        np.array([float(record.run.n_volumes) for record in records]),
        {name: np.array([of(r) for r in records], dtype=str) for name, of in FACTORS.items()},
    )
