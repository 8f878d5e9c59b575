"""Define what a metric declares of itself, and the family whose functions compute it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates

__all__ = [
    "CORRELATION",
    "POSITIVE",
    "PROPORTION",
    "Bounds",
    "Family",
    "Margin",
    "Metric",
    "Rule",
    "Use",
]

Bounds = tuple[float, float]
"""Range of a value."""

PROPORTION: Bounds = (0.0, 1.0)
CORRELATION: Bounds = (-1.0, 1.0)
POSITIVE: Bounds = (0.0, math.inf)

Margin = Callable[[Estimate, Estimate | None], float | str]
"""From an estimate, and the same of real data as its own generator (or None), to the distance by
which the rule is met (negative: missed), or to the reason why it cannot be judged."""


@dataclass(frozen=True)
class Rule:
    """What is asked of a metric.

    Attributes
    ----------
    asked : str
        The rule in words.
    margin : callable
        Judges an estimate (`fmrisynth.evaluation.metrics.rules`).
    needs : str
        What a dataset must have for the metric to exist.
    optional : bool
        Leave the rule out where the metric does not exist.
    """

    asked: str
    margin: Margin
    needs: str
    optional: bool = False


@dataclass(frozen=True)
class Use:
    """What synthetic data can be used for when a group of rules is met.

    Attributes
    ----------
    name : str
        Heading in the report.
    meant : str
        Examples of the use.
    """

    name: str
    meant: str


@dataclass(frozen=True)
class Metric:
    """All that the verdict, the tables, ``metrics.json`` and the docs say of a metric.

    Attributes
    ----------
    name : str
        Name in ``metrics.tsv``, without brackets and without the ending of a level.
    section : str
        Section of the report that shows it.
    label : str
        Short name in the verdict and in the tables.
    what : str
        Definition, with the unit where there is one.
    ceiling, floor : str
        What the two are, or "none" and why.
    rule : Rule, optional
        What is asked of it.
    use : Use, optional
        What the rule speaks for.
    parts : str
        Caption of the table of the metric's parts, ``name[part]``, where it has one.
    absolute : bool
        Show the metric in the folded table of absolute units.
    bounds : tuple of float
        Range of the metric, which intervals over several samples do not leave.
    """

    name: str
    section: str
    label: str
    what: str
    ceiling: str
    floor: str
    rule: Rule | None = None
    use: Use | None = None
    parts: str = ""
    absolute: bool = False
    bounds: Bounds = (-math.inf, math.inf)


@dataclass(frozen=True)
class Family:
    """Metrics that one module computes together.

    Attributes
    ----------
    name : str
        Name of the family; its random draws are keyed by it.
    question : str
        What a reader learns from the family.
    metrics : tuple of Metric
        The metrics, in the order of the tables.
    compare : callable
        Compares a generator with the real held-out participants.
    compare_real : callable
        Does the same with real data as their own generator.
    by_level : bool
        Compare once on every level of conditions (headline conditions, trial
        types, contrasts; see ``Comparison.level``), not once in all.
    """

    name: str
    question: str
    metrics: tuple[Metric, ...]
    compare: Callable[[Comparison], Estimates]
    compare_real: Callable[[Comparison], Estimates]
    by_level: bool = False
