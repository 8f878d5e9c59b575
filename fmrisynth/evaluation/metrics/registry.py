"""List the families of metrics; verdict, tables, ``metrics.json`` and docs iterate over them.

The ceiling is what real data reach, and the floor what a useless generator
has. Which real data and what kind of uselessness differs from metric to
metric. Where a metric has no ceiling or no floor, its text begins with "none"
and says why.
"""

from __future__ import annotations

from fmrisynth.evaluation.metrics import (
    activation,
    carriers,
    connectivity,
    copying,
    decoding,
    diversity,
    individuals,
    overlap,
    realism,
    timeseries,
    timing,
    told_apart,
    variance,
)
from fmrisynth.evaluation.metrics.metric import Family, Metric

__all__ = [
    "FAMILIES",
    "all_metrics",
    "describe",
    "find_metric",
    "metrics_reference",
    "split_name",
]

FAMILIES: tuple[Family, ...] = (
    activation.FAMILY,
    overlap.FAMILY,
    timeseries.FAMILY,
    told_apart.FAMILY,
    realism.FAMILY,
    timing.FAMILY,
    individuals.FAMILY,
    diversity.FAMILY,
    connectivity.FAMILY,
    variance.FAMILY,
    copying.FAMILY,
    carriers.FAMILY,
    decoding.FAMILY,
)
"""All families, in the order of the tables."""

_LEVELS = ("_trial_type", "_contrast")


def all_metrics() -> tuple[Metric, ...]:
    """List the metrics of all families, in the order of the tables."""
    return tuple(metric for family in FAMILIES for metric in family.metrics)


def split_name(row: str) -> tuple[str, str, str]:
    """Take the name of a row of the table apart.

    Parameters
    ----------
    row : str
        Such as ``corr_contrast[left > right]``.

    Returns
    -------
    metric, level, part : str
        Here ``corr``, ``_contrast`` and ``left > right``; the last two are
        empty where the name has none.
    """
    base, _, part = row.partition("[")
    known = {metric.name for metric in all_metrics()}
    for level in _LEVELS:
        if base not in known and base.endswith(level):
            return base.removesuffix(level), level, part.removesuffix("]")
    return base, "", part.removesuffix("]")


def find_metric(row: str) -> Metric:
    """Find the metric that a row of the table belongs to.

    Parameters
    ----------
    row : str
        Name in the table, such as ``corr_contrast[left > right]``.

    Returns
    -------
    Metric

    Raises
    ------
    KeyError
        When no metric has this name.
    """
    name, _, _ = split_name(row)
    return {metric.name: metric for metric in all_metrics()}[name]


def describe() -> dict[str, object]:
    """Describe the columns and metrics of ``metrics.tsv``, as a BIDS sidecar does.

    Returns
    -------
    dict
        JSON-able.
    """
    levels = {
        metric.name: f"{metric.what} — ceiling: {metric.ceiling}; floor: {metric.floor}"
        for metric in all_metrics()
    }
    interval = (
        "bootstrap interval over participants, and over samples where there are several of each run"
    )
    return {
        "metric": {
            "Description": (
                "Name of the metric. Names in brackets are those of a condition, or a number of "
                "participants; the ending _trial_type or _contrast says what the conditions are."
            ),
            "Levels": levels,
        },
        "generator": {"Description": "What wrote the runs; 'real' is real data in its place."},
        "value": {
            "Description": "The value on real held-out participants, mean over samples of each run."
        },
        "ci_low": {"Description": f"Lower end of the 95 % {interval}."},
        "ci_high": {"Description": f"Upper end of the 95 % {interval}."},
        "ceiling": {"Description": "What real data reach; see the levels of metric."},
        "floor": {"Description": "What a useless generator has; see the levels of metric."},
    }


def metrics_reference() -> str:
    """Write all metrics in Markdown, a table for each family."""
    head = "| metric | what it is | ceiling and floor |\n|---|---|---|"
    parts = []
    for family in FAMILIES:
        rows = []
        for metric in family.metrics:
            what = metric.what
            if metric.rule is not None and metric.use is not None:
                what += f"<br>**Rule** ({metric.use.name}): {metric.rule.asked}"
            ends = f"**Ceiling**: {metric.ceiling}<br>**Floor**: {metric.floor}"
            cells = (f"`{metric.name}`", what, ends)
            rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
        parts += [f"## {family.name.capitalize()}", family.question, "\n".join([head, *rows])]
    return "\n\n".join(parts)
