"""Figures of the time series per participant, and their ratio to the real ones.

Array legend: ``P`` participants, ``F`` figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fmrisynth.evaluation.cohort.maps import ordered_runs
from fmrisynth.evaluation.measures.resampling import NAN, Figure, bootstrap_counts, interval
from fmrisynth.evaluation.runs.noise import N_LAGS, band_quarters
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["NAMES", "compare_time_series", "halves_of", "real_time_series", "run_figures"]

_LAGS = tuple(f"lag{lag}" for lag in range(1, N_LAGS + 1))
NAMES = ("temporal_sd", "tsnr", *_LAGS, "fwhm", "power_q1", "power_q2", "power_q3", "power_q4")
"""Names of the ``F`` figures of one run."""

_WITH_RATIO = ("temporal_sd", "tsnr", "lag1", "fwhm")

_WHITE = dict.fromkeys((*_LAGS, "fwhm"), 0.0) | dict.fromkeys(NAMES[-4:], 0.25)
"""What noise that is white in time and space has: the floor of figures of colour."""

Cells = Mapping[tuple[str, str], np.ndarray]


def run_figures(record: RunRecord) -> np.ndarray:
    """Figures of one run in the order of `NAMES`.

    Parameters
    ----------
    record : RunRecord
        Summary of the run.

    Returns
    -------
    ndarray, shape (F,)
    """
    return np.array(
        [
            record.temporal_sd,
            record.tsnr,
            *record.autocorrelation,
            np.nanmean(record.fwhm),
            *band_quarters(record.spectrum),
        ]
    )


def compare_time_series(
    synthetic: Sequence[RunRecord],
    real: Sequence[RunRecord],
    training: Sequence[RunRecord],
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Figures of a generator's runs and their ratio to those of the real runs.

    Parameters
    ----------
    synthetic, real : sequence of RunRecord
        Runs of the same participants. Only participants and tasks that both
        have are compared.
    training : sequence of RunRecord
        Real runs of training participants, for the ceiling.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        Name → Figure; ``<name>_ratio`` is synthetic / real.
    """
    ours, theirs = _cells(synthetic), _cells(real)
    shared = [cell for cell in theirs if cell in ours]
    if not shared:
        return {}
    participants = list(dict.fromkeys(person for person, _ in shared))
    made = _by_participant(ours, shared, participants)
    found = _by_participant(theirs, shared, participants)
    tasks = {task for _, task in shared}
    reference = _by_task_mean(_cells(training), tasks)
    counts = bootstrap_counts(len(participants), rng)
    figures = {}
    for f, name in enumerate(NAMES):
        value = float(np.nanmean(made[:, f]))
        samples = np.array([_weighted_mean(made[:, f], c) for c in counts])
        floor = _WHITE.get(name, NAN)
        figures[name] = Figure(value, *interval(value, samples), float(reference[f]), floor)
        if name in _WITH_RATIO:
            base = float(np.nanmean(found[:, f]))
            drawn = np.array([_weighted_mean(found[:, f], c) for c in counts])
            ratio = _over(value, base)
            limits = interval(float(ratio), _over(samples, drawn))
            best, worst = _over(reference[f], base), _over(floor, base)
            figures[f"{name}_ratio"] = Figure(float(ratio), *limits, float(best), float(worst))
    return figures


def _over(above: ArrayLike, below: ArrayLike) -> np.ndarray:
    """Ratio, NaN over zero: runs without any smoothness have an FWHM of 0."""
    unit = np.where(np.equal(below, 0), NAN, below)
    return np.asarray(above) / unit


def real_time_series(
    real: Sequence[RunRecord], training: Sequence[RunRecord], rng: np.random.Generator
) -> dict[str, Figure]:
    """Figures of the real held-out runs themselves.

    Parameters
    ----------
    real, training : sequence of RunRecord
        Runs of real held-out and of real training participants.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        As `compare_time_series`; the ratios are those of one half of each
        participant's runs of a task to the other.
    """
    figures = compare_time_series(real, real, training, rng)
    halves = compare_time_series(*halves_of(real), training, rng)
    whole = {name: figure for name, figure in figures.items() if not name.endswith("_ratio")}
    return whole | {name: figure for name, figure in halves.items() if name.endswith("_ratio")}


def halves_of(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Split every participant's runs of each task in two; the odd one is left out.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.

    Returns
    -------
    first, second : list of RunRecord
        As many runs of the same participants and tasks in each.
    """
    groups = defaultdict(list)
    for record in ordered_runs(records):
        groups[record.run.participant, record.run.task].append(record)
    first, second = [], []
    for runs in groups.values():
        size = len(runs) // 2
        first += runs[0 : 2 * size : 2]
        second += runs[1 : 2 * size : 2]
    return first, second


def _cells(records: Sequence[RunRecord]) -> dict[tuple[str, str], np.ndarray]:
    """Mean figures of each participant and task."""
    gathered = defaultdict(list)
    for record in records:
        gathered[record.run.participant, record.run.task].append(run_figures(record))
    return {cell: np.mean(values, axis=0) for cell, values in gathered.items()}


def _by_participant(
    cells: Cells, shared: Sequence[tuple[str, str]], participants: Sequence[str]
) -> np.ndarray:
    """Mean over the shared tasks of each participant: (P, F)."""
    return np.array(
        [np.mean([cells[c] for c in shared if c[0] == person], axis=0) for person in participants]
    )


def _by_task_mean(cells: Cells, tasks: set[str]) -> np.ndarray:
    """Mean over participants and tasks, every task weighing the same: (F,)."""
    means = []
    for task in sorted(tasks):
        rows = [values for (_, name), values in cells.items() if name == task]
        if rows:
            means.append(np.mean(rows, axis=0))
    return np.mean(means, axis=0) if means else np.full(len(NAMES), NAN)


def _weighted_mean(values: np.ndarray, counts: np.ndarray) -> float:
    usable = np.isfinite(values)
    total = counts[usable].sum()
    return float(values[usable] @ counts[usable] / total) if total else NAN
