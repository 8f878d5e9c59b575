"""A metric in a single file, as docs/development/add_a_metric.md describes it."""

from __future__ import annotations

import numpy as np

from fmrisynth.evaluation.cohort.halves import split_halves
from fmrisynth.evaluation.measures.resampling import bootstrap_counts, interval
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import near_one
from fmrisynth.evaluation.metrics.uses import TIME_SERIES

METRICS = (
    Metric(
        "range_ratio",
        section="range",
        label="Range of the signal, synthetic / real",
        what="largest less smallest signal of a supervoxel, synthetic / real",
        ceiling="the same of real training runs, over held-out",
        floor="none: too much and too little are both wrong",
        rule=Rule("within 20 % of 1", near_one(0.2), "runs"),
        use=TIME_SERIES,
    ),
)


def measure(records):
    """Range of each participant's supervoxels: {participant: %}."""
    ranges = {}
    for record in records:
        value = float(np.ptp(record.array("supervoxel_series"), axis=1).mean())
        ranges.setdefault(record.run.participant, []).append(value)
    return {participant: np.mean(values) for participant, values in ranges.items()}


def compare(comparison: Comparison) -> Estimates:
    """Compare a generator with the real participants."""
    return _ratio(comparison, comparison.runs, comparison.real_runs)


def compare_real(comparison: Comparison) -> Estimates:
    """Compare one half of the real runs with the other."""
    return _ratio(comparison, *split_halves(comparison.real_runs))


def _ratio(comparison, synthetic, real) -> Estimates:
    above, below = measure(synthetic), measure(real)
    names = [name for name in above if name in below]
    if not names:
        return {}
    values, units = (np.array([side[name] for name in names]) for side in (above, below))
    counts = bootstrap_counts(len(names), comparison.random("bootstrap"))
    ratios = (counts @ values) / (counts @ units)
    limits = interval(values.mean() / units.mean(), ratios, len(names))
    training = list(measure(comparison.training_runs).values())
    ceiling = float(np.mean(training) / units.mean()) if training else float("nan")
    return {"range_ratio": Estimate(float(values.mean() / units.mean()), *limits, ceiling)}


FAMILY = Family("range", "Does the signal span as much?", METRICS, compare, compare_real)
