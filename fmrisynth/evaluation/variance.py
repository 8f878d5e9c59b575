"""What volumes differ by: participant, phase encoding and task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fmrisynth.evaluation.maps import on_mask
from fmrisynth.evaluation.records import RunRecord
from fmrisynth.evaluation.resampling import Figure

__all__ = ["FACTORS", "variance_figures", "variance_shares"]

FACTORS: dict[str, Callable[[RunRecord], str]] = {
    "participant": lambda record: record.run.participant,
    "phase_encoding": lambda record: record.run.phase_encoding,
    "task": lambda record: record.run.task,
}
"""The factors of the decomposition and the level of each for a run."""


def variance_shares(records: Sequence[RunRecord], mask: np.ndarray) -> dict[str, float]:
    """Share of the variance of all volumes that each factor explains by itself.

    Volumes are scaled by the median of their run's mean image. The share of a
    factor is its sum of squares between levels over the total one (η²), in
    which the variance over time within runs has its part.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.
    mask : ndarray of bool, shape (X, Y, Z)
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


def variance_figures(made: dict[str, float], real: dict[str, float]) -> dict[str, Figure]:
    """Shares of a generator, with those of the real held-out runs as what to reach.

    Parameters
    ----------
    made, real : dict
        From `variance_shares`.

    Returns
    -------
    dict
        ``variance_<factor>`` → Figure whose ceiling is the real share.
    """
    return {
        f"variance_{name}": Figure(share, ceiling=real.get(name, float("nan")))
        for name, share in made.items()
    }
