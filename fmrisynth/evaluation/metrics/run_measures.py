"""Compare numbers of single runs: their means over participants, ratios and spreads.

Legend: P participants, F measures of one run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from fmrisynth.evaluation.measures.resampling import NAN, bootstrap_counts, finite_mean, interval
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["RunMeasures", "compare_runs"]

Cells = Mapping[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class RunMeasures:
    """Say what is measured of a run, and how it is compared.

    Attributes
    ----------
    names : tuple of str
        Names of the F measures.
    measure : callable
        Gives them for one run: (F,).
    floors : mapping
        Name → what a useless generator has.
    ratios : tuple of str
        Measures of which synthetic / real, ``<name>_ratio``, is given as well.
    spreads : tuple of str
        Measures of which the standard deviation over participants, synthetic
        / real, ``<name>_spread_ratio``, is given as well.
    """

    names: tuple[str, ...]
    measure: Callable[[RunRecord], np.ndarray]
    floors: Mapping[str, float] = field(default_factory=dict)
    ratios: tuple[str, ...] = ()
    spreads: tuple[str, ...] = ()


def compare_runs(
    measures: RunMeasures,
    synthetic: Sequence[RunRecord],
    real: Sequence[RunRecord],
    training: Sequence[RunRecord],
    rng: np.random.Generator,
    *,
    paired: bool = True,
) -> Estimates:
    """Measure runs, and divide by the measures of the real runs.

    Parameters
    ----------
    measures : RunMeasures
        What is measured.
    synthetic, real : sequence of RunRecord
        Runs of the same participants. Only participants and tasks that both
        have are compared; of different participants, tasks that both have.
    training : sequence of RunRecord
        Real runs of training participants, for the ceiling.
    rng : numpy.random.Generator
        Random numbers of the bootstrap.
    paired : bool
        Whether the participants are the same.

    Returns
    -------
    dict
        ``<name>`` → Estimate, and ``<name>_ratio`` and ``<name>_spread_ratio``
        where they are asked for.
    """
    cells, real_cells = _cells(synthetic, measures), _cells(real, measures)
    own, shared = _shared(cells, real_cells, paired)
    if not shared:
        return {}
    values, participants = _by_participant(cells, own), _participants(own)
    real_values, real_participants = _by_participant(real_cells, shared), _participants(shared)
    n_participants = min(len(participants), len(real_participants))
    tasks = {task for _, task in shared}
    others = {cell: row for cell, row in _cells(training, measures).items() if cell[1] in tasks}
    reference = _by_task_mean(others, tasks, len(measures.names))
    counts = real_counts = bootstrap_counts(len(real_participants), rng)
    if not paired:
        counts = bootstrap_counts(len(participants), rng)
        number = min(len(counts), len(real_counts))
        counts, real_counts = counts[:number], real_counts[:number]
    estimates = {}
    for f, name in enumerate(measures.names):
        value = finite_mean(values[:, f])
        samples = np.array([_weighted_mean(values[:, f], c) for c in counts])
        floor = measures.floors.get(name, NAN)
        limits = interval(value, samples, n_participants)
        estimates[name] = Estimate(value, *limits, float(reference[f]), floor)
        if name in measures.ratios:
            base = finite_mean(real_values[:, f])
            drawn = np.array([_weighted_mean(real_values[:, f], c) for c in real_counts])
            ratio = float(_over(value, base))
            limits = interval(ratio, _over(samples, drawn), n_participants)
            ceiling, worst = _over(reference[f], base), _over(floor, base)
            estimates[f"{name}_ratio"] = Estimate(ratio, *limits, float(ceiling), float(worst))
        if name in measures.spreads and n_participants > 2:
            rows = _by_participant(others, list(others))[:, f] if others else np.zeros(0)
            estimates[f"{name}_spread_ratio"] = _spread(
                values[:, f], real_values[:, f], rows, (counts, real_counts)
            )
    return estimates


def _spread(
    values: np.ndarray,
    real: np.ndarray,
    training: np.ndarray,
    counts: tuple[np.ndarray, np.ndarray],
) -> Estimate:
    """Divide the standard deviations over participants, synthetic / real; the floor is 0."""
    ratio = float(_over(values.std(), real.std()))
    samples = [
        float(_over(np.repeat(values, own).std(), np.repeat(real, others).std()))
        for own, others in zip(*counts, strict=True)
        if (own > 0).sum() > 2 and (others > 0).sum() > 2
    ]
    ceiling = float(_over(training.std(), real.std())) if len(training) > 2 else NAN
    n_participants = min(len(values), len(real))
    limits = interval(ratio, np.array(samples), n_participants, (0.0, np.inf))
    return Estimate(ratio, *limits, ceiling, 0.0)


def _over(above: ArrayLike, below: ArrayLike) -> np.ndarray:
    """Ratio, NaN over zero: runs without any smoothness have an FWHM of 0."""
    unit = np.where(np.equal(below, 0), NAN, below)
    return np.asarray(above) / unit


def _cells(
    records: Sequence[RunRecord], measures: RunMeasures
) -> dict[tuple[str, str], np.ndarray]:
    """Average the measures of the runs of each participant and task."""
    gathered = defaultdict(list)
    for record in records:
        gathered[record.run.participant, record.run.task].append(measures.measure(record))
    return {cell: np.mean(values, axis=0) for cell, values in gathered.items()}


def _shared(
    cells: Cells, real_cells: Cells, paired: bool
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Choose the participants and tasks that are compared, of either side."""
    if paired:
        shared = [cell for cell in real_cells if cell in cells]
        return shared, shared
    tasks = {task for _, task in cells} & {task for _, task in real_cells}
    own, real = ([c for c in side if c[1] in tasks] for side in (cells, real_cells))
    return own, real


def _participants(shared: Sequence[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(participant for participant, _ in shared))


def _by_participant(cells: Cells, shared: Sequence[tuple[str, str]]) -> np.ndarray:
    """Mean over the shared tasks of each participant: (P, F)."""
    return np.array(
        [
            np.mean([cells[c] for c in shared if c[0] == participant], axis=0)
            for participant in _participants(shared)
        ]
    )


def _by_task_mean(cells: Cells, tasks: set[str], n_measures: int) -> np.ndarray:
    """Mean over participants and tasks, every task weighing the same: (F,)."""
    means = []
    for task in sorted(tasks):
        rows = [values for (_, name), values in cells.items() if name == task]
        if rows:
            means.append(np.mean(rows, axis=0))
    return np.mean(means, axis=0) if means else np.full(n_measures, NAN)


def _weighted_mean(values: np.ndarray, counts: np.ndarray) -> float:
    usable = np.isfinite(values)
    total = counts[usable].sum()
    return float(values[usable] @ counts[usable] / total) if total else NAN
