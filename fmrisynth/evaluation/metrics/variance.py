"""Compare the shares of variance between runs that participant, phase encoding and task explain.

Legend: R rows (runs, or trial types of runs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.resampling import bootstrap_counts, finite_mean, interval
from fmrisynth.evaluation.measures.variance import (
    EFFECT_FACTORS,
    NETWORK_FACTORS,
    Rows,
    effect_rows,
    network_rows,
)
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import PROPORTION, Family, Metric

__all__ = ["FAMILY", "METRICS", "compare", "compare_real"]

_N_BOOTSTRAP = 100
_N_SHUFFLES = 20

_TEXTS = {
    "participant": "the participant",
    "phase_encoding": "the phase-encoding direction",
    "task": "the task",
    "trial_type": "the trial type",
}


def _metric(prefix: str, factor: str, rows: str) -> Metric:
    return Metric(
        f"{prefix}_{factor}",
        section="variance",
        bounds=PROPORTION,
        label=f"Variance of {rows} explained by {_TEXTS[factor]}",
        what=f"share of the variance of {rows} between runs that {_TEXTS[factor]} explains",
        ceiling="the same of the real held-out runs",
        floor="labels shuffled among runs that are alike in the other two factors",
    )


METRICS = (
    *(_metric("variance", factor, "effect maps") for factor in EFFECT_FACTORS),
    *(_metric("fc_variance", factor, "connectivity") for factor in NETWORK_FACTORS),
)
"""What this family computes."""


def compare(comparison: Comparison) -> Estimates:
    """Compare a generator's shares of variance with those of the real runs.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data.

    Returns
    -------
    dict
        ``variance_<factor>`` of effect maps and ``fc_variance_<factor>`` of
        connectivity → Estimate whose ceiling is the real share and whose floor
        is what the factor explains with its labels shuffled among runs that
        are alike in the other factors. Factors with a single level are left out.
    """
    return _compare(comparison, REAL)


def compare_real(comparison: Comparison) -> Estimates:
    """Compare the real held-out runs' shares of variance with those of the training runs.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`.
    """
    return _compare(comparison, TRAINING)


def _compare(comparison: Comparison, reference: str) -> Estimates:
    estimates = {}
    references = dict(_rows(comparison, reference))
    for prefix, rows in _rows(comparison, comparison.source):
        participants, index = np.unique(rows.levels["participant"], return_inverse=True)
        n = len(participants)
        draws = bootstrap_counts(n, comparison.random(f"bootstrap of {prefix}"), _N_BOOTSTRAP)
        other = references.get(prefix)
        for factor in rows.levels:
            share = rows.share(factor)
            if not math.isfinite(share):
                continue
            samples = np.array([rows.share(factor, weights=counts[index]) for counts in draws])
            rng = comparison.random(f"floor of {prefix}_{factor}")
            floors = [
                rows.share(factor, order=rows.shuffled(factor, rng)) for _ in range(_N_SHUFFLES)
            ]
            ceiling = other.share(factor) if other is not None else math.nan
            limits = interval(share, samples, n, (0.0, 1.0))
            estimates[f"{prefix}_{factor}"] = Estimate(share, *limits, ceiling, finite_mean(floors))
    return estimates


def _rows(comparison: Comparison, source: str) -> Iterator[tuple[str, Rows]]:
    """Yield the rows of each decomposition with the beginning of their metrics' names."""
    runs = comparison.cohort.runs[source]
    if not runs:
        return
    if any(record.trial_types for record in runs):  # runs at rest have no effects
        yield "variance", effect_rows(runs, comparison.cohort.keys)
    if source in comparison.measurements.networks:
        yield "fc_variance", network_rows(runs, comparison.measurements.networks[source])


FAMILY = Family(
    "variance",
    "Do participant, phase encoding and task explain as much of the variance between runs?",
    METRICS,
    compare,
    compare_real,
)
