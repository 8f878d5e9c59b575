"""Compute every metric of every source: of generators, and of real data as their own generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from threadpoolctl import threadpool_limits

from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.metrics import registry
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimates
from fmrisynth.runtime.workers import Map

__all__ = ["compare_sources"]


def compare_sources(
    comparison: Comparison, sources: Sequence[str], each: Map = map
) -> dict[str, Estimates]:
    """Compute the estimates of all families for each source.

    A source with the runs of an earlier one has that one's estimates, not other draws of them.

    Parameters
    ----------
    comparison : Comparison
        The real data, with any source.
    sources : sequence of str
        Generators, and `fmrisynth.evaluation.cohort.roles.REAL` for real data as their
        own generator.
    each : Map
        Computes the families, each for all sources, as these have references in common.

    Returns
    -------
    dict
        Source → row of the table → Estimate, in the order of the table: first the
        families that are compared on every level of conditions, level by level.
    """
    first_with = comparison.cohort.first_with_these_runs
    distinct = list(dict.fromkeys(first_with[source] for source in sources))
    overall = comparison.level
    parts = [
        (number, level)
        for level in comparison.cohort.conditions.levels()
        for number, family in enumerate(registry.FAMILIES)
        if family.by_level and level.names  # runs at rest have no conditions
    ]
    parts += [(n, overall) for n, family in enumerate(registry.FAMILIES) if not family.by_level]
    estimates: dict[str, Estimates] = {source: {} for source in distinct}
    for found in each(partial(_compare, comparison=comparison, sources=distinct), parts):
        for source in distinct:
            estimates[source] |= found[source]
    return {source: estimates[first_with[source]] for source in sources}


def _compare(
    part: tuple[int, Level], *, comparison: Comparison, sources: Sequence[str]
) -> dict[str, Estimates]:
    """Compute the estimates of one family, by its number, on one level."""
    number, level = part
    family = registry.FAMILIES[number]  # whose functions other processes are not to be sent
    found = {}
    with threadpool_limits(1):
        for source in sources:
            compare = family.compare_real if source == REAL else family.compare
            own = compare(replace(comparison, source=source, level=level, family=family.name))
            found[source] = _name(own, level) if family.by_level else own
    return found


def _name(estimates: Estimates, level: Level) -> Estimates:
    """Name estimates after their level; contrasts that cannot be compared are left out."""
    return {
        level.metric(name): estimate
        for name, estimate in estimates.items()
        if level.suffix != "_contrast" or math.isfinite(estimate.value)
    }
