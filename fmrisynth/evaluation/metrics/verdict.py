"""Judge the estimates of a generator by the rules of the metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fmrisynth.evaluation.measures.resampling import NAN
from fmrisynth.evaluation.metrics.estimate import Estimate
from fmrisynth.evaluation.metrics.metric import Metric, Rule
from fmrisynth.evaluation.metrics.registry import all_metrics

__all__ = ["Judgement", "Tally", "count", "judge"]


@dataclass(frozen=True)
class Judgement:
    """One row of the verdict.

    Attributes
    ----------
    metric : Metric
        The metric that was judged.
    rule : Rule
        What was asked of it.
    estimate : Estimate
        Its estimate.
    margin : float
        By how much the rule is met; NaN when it cannot be judged.
    reason : str
        Why it cannot be judged; empty when it can.
    """

    metric: Metric
    rule: Rule
    estimate: Estimate
    margin: float
    reason: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the rule is met; None when it cannot be judged."""
        return None if self.reason else self.margin >= 0


@dataclass(frozen=True)
class Tally:
    """Count rules by their outcome.

    Attributes
    ----------
    met, missed, not_judged : int
        Numbers of rules.
    """

    met: int
    missed: int
    not_judged: int


def count(judgements: Iterable[Judgement]) -> Tally:
    """Count the rules that are met, missed, and not judged."""
    outcomes = [judgement.passed for judgement in judgements]
    return Tally(outcomes.count(True), outcomes.count(False), outcomes.count(None))


def judge(
    estimates: Mapping[str, Estimate], real: Mapping[str, Estimate] | None = None
) -> tuple[Judgement, ...]:
    """Apply the rules of all metrics to the estimates of a generator.

    Parameters
    ----------
    estimates : mapping
        Name of a metric → Estimate.
    real : mapping, optional
        The estimates of real data as its own generator (split halves).

    Returns
    -------
    tuple of Judgement
        One for each metric with a rule, in the order of the registry; where it
        cannot be judged, ``reason`` says why.
    """
    real = real or {}
    judgements = []
    for metric in all_metrics():
        estimate = estimates.get(metric.name)
        if metric.rule is None or (estimate is None and metric.rule.optional):
            continue
        judgements.append(
            _judge(metric, metric.rule, estimate or Estimate(NAN), real.get(metric.name))
        )
    return tuple(judgements)


def _judge(metric: Metric, rule: Rule, estimate: Estimate, real: Estimate | None) -> Judgement:
    if not math.isfinite(estimate.value):
        return Judgement(metric, rule, estimate, NAN, f"this needs {rule.needs}")
    if estimate.by_construction:
        reason = f"by construction: {estimate.by_construction}"
        return Judgement(metric, rule, estimate, NAN, reason)
    margin = rule.margin(estimate, real)
    if isinstance(margin, str):
        return Judgement(metric, rule, estimate, NAN, margin)
    if not math.isfinite(margin):
        return Judgement(metric, rule, estimate, NAN, "the estimate or its ceiling is not finite")
    return Judgement(metric, rule, estimate, float(margin))
