"""Compute every metric of one source: a generator, or real data as their own generator."""

from __future__ import annotations

import math
from dataclasses import replace

from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.metrics import registry
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimates
from fmrisynth.evaluation.metrics.metric import Family

__all__ = ["compare_source"]


def compare_source(comparison: Comparison) -> Estimates:
    """Compute the estimates of all families for one source.

    Parameters
    ----------
    comparison : Comparison
        The source beside the real data; ``comparison.source`` may be
        `fmrisynth.evaluation.cohort.roles.REAL`, real data as their own
        generator.

    Returns
    -------
    dict
        Row of the table → Estimate, in the order of the table: first the
        families that are compared on every level of conditions, level by level.
    """
    estimates: Estimates = {}
    for level in comparison.cohort.conditions.levels():
        for family in registry.FAMILIES:
            if family.by_level and level.names:  # runs at rest have no conditions
                estimates |= _name(_compare(family, replace(comparison, level=level)), level)
    for family in registry.FAMILIES:
        if not family.by_level:
            estimates |= _compare(family, comparison)
    return estimates


def _compare(family: Family, comparison: Comparison) -> Estimates:
    compare = family.compare_real if comparison.source == REAL else family.compare
    return compare(replace(comparison, family=family.name))


def _name(estimates: Estimates, level: Level) -> Estimates:
    """Name estimates after their level; contrasts that cannot be compared are left out."""
    return {
        level.metric(name): estimate
        for name, estimate in estimates.items()
        if level.suffix != "_contrast" or math.isfinite(estimate.value)
    }
