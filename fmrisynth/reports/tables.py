"""Tabulate estimates below each section's pictures, and add them up to a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.metrics.estimate import Estimate
from fmrisynth.evaluation.metrics.metric import Metric
from fmrisynth.evaluation.metrics.registry import all_metrics, find_metric, split_name
from fmrisynth.evaluation.metrics.verdict import Judgement, judge
from fmrisynth.evaluation.result import Evaluation

__all__ = ["section_tables", "uses", "verdict", "verdict_overview"]

_KINDS: Mapping[str, str] = {"": "condition", "_trial_type": "trial type", "_contrast": "contrast"}
"""Level of conditions → what one of them is called."""

_CONTRASTS = "contrasts"
"""Section that shows what any section has of the user's contrasts."""


def section_tables(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Tabulate the estimates of every section.

    Parameters
    ----------
    evaluation : Evaluation
        What is shown.

    Returns
    -------
    dict
        Section of a metric → ``rows`` (`_row`), and ``details``: further
        tables, each with ``caption`` and ``rows``. Metrics that no generator
        has are left out; those of contrasts stand in a section of their own.
    """
    tables: dict[str, dict[str, Any]] = {
        section: {"rows": [], "details": []}
        for section in (*(metric.section for metric in all_metrics()), _CONTRASTS)
    }
    names = [split_name(row) for row in _rows_with_values(evaluation)]
    whole = {(metric, level) for metric, level, part in names if not part}
    absolute: dict[str, list[dict[str, Any]]] = {}
    for metric in all_metrics():
        for level, kind in _KINDS.items():
            table = tables[_CONTRASTS if level == "_contrast" else metric.section]
            if (metric.name, level) in whole:
                row = _row(evaluation, metric.name + level)
                shown = (
                    absolute.setdefault(metric.section, []) if metric.absolute else table["rows"]
                )
                shown.append(row)
            parts = [
                part for name, at, part in names if part and (name, at) == (metric.name, level)
            ]
            if parts and metric.parts:
                rows = [_row(evaluation, f"{metric.name}{level}[{part}]", part) for part in parts]
                table["details"].append({"caption": metric.parts.format(kind=kind), "rows": rows})
    for section, rows in absolute.items():
        tables[section]["details"].insert(0, {"caption": "In absolute units", "rows": rows})
    return tables


def verdict(evaluation: Evaluation, generator: str) -> list[dict[str, Any]]:
    """List the rules with the estimates of one generator."""
    rows = []
    for judgement in _judged(evaluation, generator):
        estimate = judgement.estimate
        rows.append(
            {
                "metric": judgement.metric.name,
                "label": judgement.metric.label,
                "asked": judgement.rule.asked,
                "use": judgement.metric.use.name if judgement.metric.use else "",
                "value": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "ceiling": estimate.ceiling,
                "floor": estimate.floor,
                "passed": judgement.passed,
                "said": _said(judgement),
            }
        )
    return rows


def verdict_overview(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Set the generators side by side: a row for each requirement, a cell for each generator."""
    judged = {
        name: {j.metric.name: j for j in _judged(evaluation, name)}
        for name in evaluation.generators
    }
    asked = {name: j for judgements in judged.values() for name, j in judgements.items()}
    rows = []
    for name, judgement in asked.items():
        cells = []
        for generator in evaluation.generators:
            own = judged[generator].get(name)
            cells.append(
                {
                    "value": own.estimate.value if own else math.nan,
                    "passed": own.passed if own else None,
                }
            )
        real = evaluation.estimates[REAL].get(name)
        rows.append(
            {
                "label": judgement.metric.label,
                "asked": judgement.rule.asked,
                "cells": cells,
                "real": real.value if real else math.nan,
            }
        )
    return rows


def uses(evaluation: Evaluation, generator: str) -> list[dict[str, str]]:
    """Add the requirements up to what a generator's data can stand for.

    Returns
    -------
    list of dict
        ``name``, ``meant``, ``state`` (``"good"``, ``"bad"`` or ``"soft"``)
        and ``said``. Requirements that belong to no use make one of their own.
    """
    judged = _judged(evaluation, generator)
    summaries = []
    for use in dict.fromkeys(judgement.metric.use for judgement in judged):
        rows = [judgement for judgement in judged if judgement.metric.use == use]
        missed = [judgement.metric.label for judgement in rows if judgement.passed is False]
        unknown = [judgement.metric.label for judgement in rows if judgement.passed is None]
        if missed:
            state, said = "bad", "no: " + "; ".join(missed)
            if unknown:
                said += f" (not judged: {'; '.join(unknown)})"
        elif len(unknown) == len(rows):
            state, said = "soft", "cannot be judged on these data"
        elif unknown:
            state, said = "good", "yes, as far as it can be judged; not: " + "; ".join(unknown)
        else:
            state, said = "good", "yes"
        name, meant = (use.name, use.meant) if use else ("Further requirements", "")
        summaries.append({"name": name, "meant": meant, "state": state, "said": said})
    return summaries


def _judged(evaluation: Evaluation, generator: str) -> tuple[Judgement, ...]:
    return judge(evaluation.estimates[generator], evaluation.estimates[REAL])


def _rows_with_values(evaluation: Evaluation) -> list[str]:
    """List the rows of the table that some generator has a value of, in its order."""
    rows = (
        row
        for name in evaluation.generators
        for row, estimate in evaluation.estimates[name].items()
        if math.isfinite(estimate.value)
    )
    return list(dict.fromkeys(rows))


def _row(evaluation: Evaluation, name: str, part: str = "") -> dict[str, Any]:
    """Set one row: a cell for each generator, then ceiling, floor and the value of real data.

    Ceiling and floor are those of the first generator that has the row. A part
    of a metric is called by its own name, the metric by its label.
    """
    cells = [evaluation.estimates[generator].get(name) for generator in evaluation.generators]
    known: list[Estimate] = [cell for cell in cells if cell is not None]
    real = evaluation.estimates[REAL].get(name)
    metric, level = find_metric(name), split_name(name)[1]
    return {
        "label": part or metric.label + (f", {_KINDS[level]}s" if level else ""),
        "limits": "" if part else _explain(metric),
        "cells": cells,
        "real": real.value if real else math.nan,
        "ceiling": known[0].ceiling,
        "floor": known[0].floor,
        "digits": _digits([v for e in known for v in (e.value, e.high, e.ceiling)]),
    }


def _explain(metric: Metric) -> str:
    """Say what a metric is, and what its ceiling and floor are where it has them."""
    limits = (("ceiling", metric.ceiling), ("floor", metric.floor))
    return "; ".join(
        [metric.what, *(f"{name}: {text}" for name, text in limits if not text.startswith("none"))]
    )


def _digits(values: Sequence[float]) -> int:
    """Count the decimals with which the largest of some values shows two significant figures."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if largest > 1 and all(v == round(v) for v in values if math.isfinite(v)):
        return 0
    return min(5, max(2, 1 - math.floor(math.log10(largest)))) if largest else 2


def _said(judgement: Judgement) -> str:
    if judgement.passed is None:
        return f"not judged: {judgement.reason}"
    if judgement.passed:
        return "pass"
    missing = -judgement.margin
    return f"short by {missing:.3f}" if missing < 0.01 else f"short by {missing:.2f}"
