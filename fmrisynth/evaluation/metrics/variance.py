"""Compare the shares of the volumes' variance that participant, phase encoding and task explain."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    bootstrap_counts,
    finite_mean,
    interval,
)
from fmrisynth.evaluation.measures.variance import run_vectors
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import Family, Metric

__all__ = ["FAMILY", "METRICS", "compare", "compare_real"]

_N_BOOTSTRAP = 100
_N_SHUFFLES = 20

METRICS = tuple(
    Metric(
        f"variance_{factor}",
        section="variance",
        label=f"Variance explained by {text}",
        what=f"share of the variance of volumes that {text} explains",
        ceiling="the same of the real held-out runs",
        floor="labels shuffled among runs that are alike in the other two factors",
    )
    for factor, text in (
        ("participant", "the participant"),
        ("phase_encoding", "the phase-encoding direction"),
        ("task", "the task"),
    )
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
        ``variance_<factor>`` → Estimate whose ceiling is the real share and
        whose floor is what the factor explains with its labels shuffled among
        runs that are alike in the other factors.
    """
    return _compare(comparison, comparison.measurements.shares[REAL])


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
    return _compare(comparison, comparison.measurements.shares.get(TRAINING, {}))


def _compare(comparison: Comparison, ceilings: Mapping[str, float]) -> Estimates:
    vectors = run_vectors(comparison.runs, comparison.cohort.mask)
    participants, index = np.unique(vectors.levels["participant"], return_inverse=True)
    draws = bootstrap_counts(len(participants), comparison.random("bootstrap"), _N_BOOTSTRAP)
    estimates = {}
    for factor, share in comparison.measurements.shares[comparison.source].items():
        samples = np.array([vectors.share(factor, weights=counts[index]) for counts in draws])
        rng = comparison.random(f"floor of {factor}")
        floors = [
            vectors.share(factor, order=vectors.shuffled(factor, rng)) for _ in range(_N_SHUFFLES)
        ]
        limits = interval(share, samples, (0.0, 1.0))
        estimates[f"variance_{factor}"] = Estimate(
            share, *limits, ceilings.get(factor, NAN), finite_mean(floors)
        )
    return estimates


FAMILY = Family(
    "variance",
    "Do participant, phase encoding and task explain as much of the variance?",
    METRICS,
    compare,
    compare_real,
)
