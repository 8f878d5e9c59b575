"""From an evaluation to self-contained pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fmrisynth.bids.atomic import atomic_path, make_folder
from fmrisynth.evaluation.result import REAL, Evaluation
from fmrisynth.evaluation.tables import metrics_table
from fmrisynth.evaluation.verdict import Judgement, judge
from fmrisynth.reports import figures, sections

__all__ = ["environment", "render_group_report", "write_citation", "write_group_report"]


def write_group_report(evaluation: Evaluation, target: Path, context: Mapping[str, Any]) -> None:
    """Write the group report.

    Parameters
    ----------
    evaluation : Evaluation
        What is shown.
    target : Path
        ``group.html``; it appears only when complete.
    context : mapping
        What the caller knows beyond the evaluation; all optional: ``title``
        and ``dataset`` (str), ``settings`` and ``versions`` (mappings of
        names to values), ``notices`` (sequence of str, shown on top).
    """
    page = render_group_report(evaluation, context)
    make_folder(target.parent)
    with atomic_path(target) as path:
        path.write_text(page, encoding="utf-8")


def write_citation(evaluation: Evaluation, target: Path, versions: Mapping[str, str]) -> None:
    """Write the methods paragraph with its references, to be copied into a paper.

    Parameters
    ----------
    evaluation : Evaluation
        What was done.
    target : Path
        ``CITATION.md``; it appears only when complete.
    versions : mapping
        Program → version.
    """
    text = (
        environment(escape=False)
        .get_template("citation.md")
        .render(
            conditions=evaluation.conditions,
            training=evaluation.training,
            n_held_out=len(evaluation.held_out),
            settings=evaluation.settings,
            versions=versions,
        )
    )
    make_folder(target.parent)
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")


def render_group_report(evaluation: Evaluation, context: Mapping[str, Any]) -> str:
    """Render the group report as HTML text.

    Parameters
    ----------
    evaluation : Evaluation
        What is shown.
    context : mapping
        As for `write_group_report`.

    Returns
    -------
    str
        A page that needs no other file and no network.
    """
    generators = evaluation.generators
    colours = {name: figures.colour_of(i) for i, name in enumerate((REAL, *generators))}
    return (
        environment()
        .get_template("group.html")
        .render(
            title=context.get("title", "Synthetic task fMRI: group report"),
            dataset=context.get("dataset", ""),
            notices=[*context.get("notices", ()), *evaluation.notices],
            generators=generators,
            tested=generators[0],
            colours=colours,
            verdicts=[(name, _verdict(evaluation, name)) for name in generators],
            conditions=evaluation.conditions,
            maps=sections.maps(evaluation),
            rdms=sections.rdms(evaluation),
            identification=sections.identification(evaluation),
            courses=sections.courses(evaluation, colours),
            noise=sections.noise(evaluation, colours),
            participants=sections.participants(evaluation),
            networks=sections.networks(evaluation, colours),
            variance=sections.variance(evaluation),
            copying=sections.copying(evaluation),
            decoding=sections.decoding(evaluation),
            real_colour=figures.COLOURS[0],
            both_colour=figures.COLOURS[1],
            table=_table(evaluation),
            held_out=evaluation.held_out,
            training=evaluation.training,
            nothing_held_out=not evaluation.training and bool(evaluation.notices),
            settings={**context.get("settings", {}), **evaluation.settings},
            versions=context.get("versions", {}),
        )
    )


def environment(*, escape: bool = True) -> Environment:
    """Make the template environment: what is not markup is escaped, unless it is for plain text."""
    environment = Environment(
        loader=PackageLoader("fmrisynth.reports"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _number
    return environment


def _number(value: float, digits: int = 2) -> str:
    """Format a figure; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def _verdict(evaluation: Evaluation, generator: str) -> list[dict[str, Any]]:
    rows = []
    for judgement in judge(evaluation.figures[generator], evaluation.figures[REAL]):
        figure = judgement.figure
        rows.append(
            {
                "label": judgement.rule.label,
                "asked": judgement.rule.asked,
                "value": figure.value,
                "low": figure.low,
                "high": figure.high,
                "ceiling": figure.ceiling,
                "floor": figure.floor,
                "passed": judgement.passed,
                "said": _said(judgement),
            }
        )
    return rows


def _said(judgement: Judgement) -> str:
    if judgement.passed is None:
        if not math.isfinite(judgement.figure.value):
            return "not judged: real data too noisy, or missing"
        return "not judged: " + (
            "no ceiling" if not math.isfinite(judgement.figure.ceiling) else "interval too wide"
        )
    if judgement.passed:
        return "pass"
    missing = -judgement.margin
    return f"short by {missing:.3f}" if missing < 0.01 else f"short by {missing:.2f}"


def _table(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "metric": row.metric,
            "generator": row.generator,
            "numbers": (row.value, row.ci_low, row.ci_high, row.ceiling, row.floor),
        }
        for row in metrics_table(evaluation).itertuples()
    ]
