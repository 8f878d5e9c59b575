"""Average the estimates of several samples of the same runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import Bounds
from fmrisynth.evaluation.metrics.registry import find_metric

__all__ = ["pool_samples"]


def pool_samples(drawn: Sequence[Estimates], n_participants: int) -> Estimates:
    """Average estimates over samples, whose spread is a second source of chance.

    Parameters
    ----------
    drawn : sequence of Estimates
        The estimates with the first sample of each run, with the second, and so on.
    n_participants : int
        Number of participants that the intervals rest on.

    Returns
    -------
    dict
        Row of the table → Estimate, the rows of the first sample. Ceilings and floors are means,
        too; what only the first sample has stays as it is.
    """
    pooled = {}
    for name, first in drawn[0].items():
        others = [estimates[name] for estimates in drawn[1:] if name in estimates]
        known = [e for e in (first, *others) if math.isfinite(e.value)]
        several = len(known) > 1 and math.isfinite(first.value)
        bounds = find_metric(name).bounds
        pooled[name] = _pool(known, n_participants, bounds) if several else first
    return pooled


def _pool(drawn: Sequence[Estimate], n_participants: int, bounds: Bounds) -> Estimate:
    values = [estimate.value for estimate in drawn]
    value = _mean(values)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    widths = (
        _mean([estimate.value - estimate.low for estimate in drawn]),
        _mean([estimate.high - estimate.value for estimate in drawn]),
    )
    below, above = (_wider(width, error, n_participants, len(drawn)) for width in widths)
    return Estimate(
        value,
        max(value - below, bounds[0]) if math.isfinite(below) else below,
        min(value + above, bounds[1]) if math.isfinite(above) else above,
        _mean([estimate.ceiling for estimate in drawn]),
        _mean([estimate.floor for estimate in drawn]),
        drawn[0].by_construction,
    )


def _wider(width: float, error: float, n_participants: int, n_samples: int) -> float:
    """Widen one side of an interval over participants by the standard error over samples.

    Both variances of the mean are added; their sum has the degrees of freedom of Welch (1947,
    Biometrika 34, 28–35) and Satterthwaite (1946, Biometrics Bulletin 2, 110–114). Participants
    differ by their draws, too, so that some of the spread of samples counts twice: on the safe
    side.
    """
    if not math.isfinite(width) or n_participants < 2 or error == 0:
        return width
    of_participants = (width / stats.t.ppf(0.975, n_participants - 1)) ** 2
    of_samples = error**2
    freedom = (of_participants + of_samples) ** 2 / (
        of_participants**2 / (n_participants - 1) + of_samples**2 / (n_samples - 1)
    )
    return float(stats.t.ppf(0.975, freedom) * math.sqrt(of_participants + of_samples))


def _mean(values: Sequence[float]) -> float:
    """Average values; equal ones stay what they are, to the last digit."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return values[0]
    return known[0] if len(set(known)) == 1 else float(np.mean(known))
