"""Compare how far repetitions of one thing differ, in synthetic and in real data.

A participant who does a task twice gives two different runs. A generator must
not write the same run again: neither as another sample of a run, nor as another
run of that participant and task. Differences are those of effect maps on
supervoxels of 12 mm, of which noise and changes of the response both have
their part.

Legend: K trial types, B supervoxels, P participants, T volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from fmrisynth.evaluation.cohort.supervoxels import residual_series, supervoxel_effects
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    finite_mean,
    interval,
)
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import CORRELATION, POSITIVE, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import between
from fmrisynth.evaluation.metrics.uses import INDIVIDUALS
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["FAMILY", "METRICS", "compare", "retests"]

_RANGE = "0.5 to 2, where the interval can tell"

METRICS = (
    Metric(
        "diversity_runs_ratio",
        section="diversity",
        bounds=POSITIVE,
        label="Differences between runs of a participant, synthetic / real",
        what="variance of effects between runs of one participant and task, synthetic / real",
        ceiling="training participants / held-out participants",
        floor="0, the same run again",
        rule=Rule(_RANGE, between(0.5, 2.0), "two runs of a task of one participant"),
        use=INDIVIDUALS,
    ),
    Metric(
        "diversity_samples_ratio",
        section="diversity",
        bounds=POSITIVE,
        label="Differences between samples of a run, as between runs of a real participant",
        what="variance of effects between samples of one run / between real runs of one "
        "participant",
        ceiling="training participants / held-out participants",
        floor="0, the same sample again",
        rule=Rule(_RANGE, between(0.5, 2.0), "several samples of a run", optional=True),
        use=INDIVIDUALS,
    ),
    Metric(
        "sample_correlation",
        section="diversity",
        bounds=CORRELATION,
        label="Likeness of samples of one run",
        what="correlation between samples of one run, beyond what is evoked",
        ceiling="real runs of one participant and task",
        floor="1, the same sample again",
    ),
)
"""What this family computes."""

Groups = Mapping[str, Sequence[Sequence[RunRecord]]]
"""Participant → groups of runs that repeat each other."""


def retests(records: Iterable[RunRecord]) -> dict[str, list[list[RunRecord]]]:
    """Group the runs of each participant and task.

    Parameters
    ----------
    records : iterable of RunRecord
        Runs of one source.

    Returns
    -------
    dict
        Participant → groups of two or more runs.
    """
    groups: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        tasks = groups.setdefault(record.run.participant, {})
        tasks.setdefault(record.run.task, []).append(record)
    return {
        participant: several
        for participant, tasks in groups.items()
        if (several := [group for group in tasks.values() if len(group) > 1])
    }


def compare(comparison: Comparison) -> Estimates:
    """Compare the diversity of a generator with the real test-retest difference.

    Participants are what is resampled: samples of a run are no participants of
    their own.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data, or real data beside themselves,
        which have no samples.

    Returns
    -------
    dict
        ``diversity_runs_ratio``: variance of the effects between runs of one
        participant and task, synthetic / real; ``diversity_samples_ratio``: the
        same between samples of one run; both with the ratio of training to
        held-out participants as ceiling and 0, the same run again, as floor.
        ``sample_correlation``: correlation between samples of one run of what
        is not evoked; its ceiling is that of two real runs of one participant,
        its floor 1. Metrics of samples only where there are several.
    """
    keys = comparison.cohort.keys
    real = _per_participant(retests(comparison.real_runs), keys)
    training = _per_participant(retests(comparison.training_runs), keys)
    samples = comparison.cohort.samples.get(comparison.source, {})
    estimates = {}
    for name, groups in (("runs", retests(comparison.runs)), ("samples", samples)):
        synthetic = _per_participant(groups, keys)
        rows = comparison.shared_rows(synthetic, real)
        if rows is None:
            continue
        values, real_values = (np.array(row) for row in rows)
        n_participants = min(map(len, rows))
        drawn = comparison.draws_of(len(values), len(real_values), f"bootstrap of {name}")
        ratio_of = _ratio_of_means if comparison.unpaired else _ratio
        ratio = ratio_of(values[:, 0], real_values[:, 0])
        spread = np.array(
            [
                ratio_of(own * values[:, 0], others * real_values[:, 0])
                for own, others in zip(*drawn, strict=True)
            ]
        )
        others = np.array(list(training.values())).reshape(-1, 2)
        ceiling = _ratio(
            np.full(len(others), finite_mean(others[:, 0])),
            np.full(len(others), finite_mean(real_values[:, 0])),
        )
        limits = interval(ratio, spread, n_participants, (0.0, np.inf))
        estimates[f"diversity_{name}_ratio"] = Estimate(ratio, *limits, ceiling, 0.0)
        if name == "samples":
            value = finite_mean(values[:, 1])
            spread = drawn[0] @ values[:, 1] / len(values)
            limits = interval(value, spread, n_participants, (-1.0, 1.0))
            estimates["sample_correlation"] = Estimate(
                value, *limits, finite_mean(real_values[:, 1]), 1.0
            )
    return estimates


def _per_participant(groups: Groups, keys: np.ndarray) -> dict[str, tuple[float, float]]:
    """Measure how a participant's repetitions differ: variance of effects, correlation of noise."""
    measured = {}
    for participant, several in groups.items():
        differences, correlations = [], []
        for group in several:
            effects = [_effects(record, keys) for record in group]
            residuals = [_residual(record, keys) for record in group]
            for a, b in combinations(range(len(group)), 2):
                differences.append(_variance(effects[a], effects[b]))
                correlations.append(_correlation(residuals[a], residuals[b]))
        measured[participant] = finite_mean(differences), finite_mean(correlations)
    return measured


def _effects(record: RunRecord, keys: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(record.trial_types, supervoxel_effects(record, keys), strict=True))


def _variance(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    """Estimate the variance of one run's effect: half the squared difference of two runs'."""
    shared = [np.mean((first[name] - second[name]) ** 2) / 2 for name in first if name in second]
    return finite_mean(shared)


def _residual(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Residual series with every supervoxel scaled alike: (B, T)."""
    series = residual_series(record, keys)
    series = series - series.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(series, axis=1, keepdims=True)
    return series / np.where(norm > 0, norm, 1.0)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.shape != second.shape or not len(first):
        return NAN
    return float(np.einsum("bt,bt->", first, second) / len(first))


def _ratio(above: np.ndarray, below: np.ndarray) -> float:
    both = np.isfinite(above) & np.isfinite(below)
    total = below[both].sum()
    return float(above[both].sum() / total) if total > 0 else NAN


def _ratio_of_means(above: np.ndarray, below: np.ndarray) -> float:
    """Divide the means of different participants."""
    unit = finite_mean(below)
    return finite_mean(above) / unit if unit > 0 else NAN


FAMILY = Family(
    "diversity",
    "Do repetitions differ as real ones do?",
    METRICS,
    compare,
    compare,
)
