"""From an evaluation to self-contained pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fmrisynth.bids.atomic import atomic_path
from fmrisynth.evaluation.result import REAL, TRAINING, Evaluation
from fmrisynth.evaluation.tables import metrics_table
from fmrisynth.evaluation.verdict import Judgement, judge
from fmrisynth.reports import figures

__all__ = ["render_group_report", "write_group_report"]


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
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as path:
        path.write_text(page, encoding="utf-8")


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
        _environment()
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
            maps=_maps(evaluation),
            rdms=_rdms(evaluation),
            identification=_identification(evaluation),
            courses=_courses(evaluation, colours),
            noise=_noise(evaluation, colours),
            table=_table(evaluation),
            held_out=evaluation.held_out,
            training=evaluation.training,
            nothing_held_out=not evaluation.training and bool(evaluation.notices),
            settings={**context.get("settings", {}), **evaluation.settings},
            versions=context.get("versions", {}),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fmrisynth.reports"),
        autoescape=True,
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
        return "no ceiling to judge by" if math.isfinite(judgement.figure.value) else "not measured"
    if judgement.passed:
        return "pass"
    missing = -judgement.margin
    return f"short by {missing:.3f}" if missing < 0.01 else f"short by {missing:.2f}"


def _maps(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Draw the strips of slices of each condition, all of its maps on one scale."""
    mask = np.asarray(evaluation.mask.dataobj) > 0
    affine = evaluation.mask.affine
    background = np.asarray(evaluation.background.dataobj)
    sections = []
    for c, name in enumerate(evaluation.conditions.names):
        real = evaluation.maps[REAL][c]
        # The scale is that of the real map alone: a generator must not set its own.
        limit = float(np.nanpercentile(np.abs(real), 99.5)) if np.isfinite(real).any() else 1.0
        limit = limit or 1.0
        rows = [("real, held out", real)]
        rows += [(source, evaluation.maps[source][c]) for source in evaluation.generators]
        tested = evaluation.generators[0]
        rows.append((f"{tested} − real", evaluation.maps[tested][c] - real))
        strips = []
        for label, values in rows:
            volume = np.zeros(mask.shape)
            volume[mask] = np.nan_to_num(values)
            drawn = figures.draw_slices(
                background, volume, affine, limit=limit, threshold=0.2 * limit
            )
            strips.append({"label": label, "image": drawn.image, "heights": drawn.heights})
        sections.append({"name": name, "limit": limit, "strips": strips})
    return sections


def _rdms(evaluation: Evaluation) -> list[dict[str, Any]]:
    names = evaluation.conditions.names
    if len(names) < 2:
        return []
    pairs = np.triu_indices(len(names), k=1)
    values = np.concatenate([matrix[pairs] for matrix in evaluation.rdms.values()])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return [
        {
            "label": source,
            "drawing": Markup(
                figures.draw_matrix(
                    evaluation.rdms[source],
                    names,
                    label=f"Dissimilarity of conditions, {source}",
                    low=low,
                    high=high,
                )
            ),
        }
        for source in (REAL, *evaluation.generators)
    ]


def _identification(evaluation: Evaluation) -> list[dict[str, Any]]:
    names = evaluation.conditions.names
    if len(names) < 2:
        return []
    sources = [*evaluation.generators, TRAINING]
    return [
        {
            "label": source,
            "drawing": Markup(
                figures.draw_matrix(
                    evaluation.identification[source],
                    names,
                    label=f"Correlation of the maps of {source} with the real maps",
                    low=-0.2,
                    high=1.0,
                    rows=source,
                    columns="real, held out",
                )
            ),
        }
        for source in sources
        if source in evaluation.identification
    ]


def _courses(evaluation: Evaluation, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "name": course.condition,
            "drawing": Markup(
                figures.draw_time_course(
                    course.times,
                    course.curves,
                    course.prediction,
                    course.duration,
                    colours=colours,
                    label=f"Mean response to {course.condition}",
                )
            ),
        }
        for course in evaluation.time_courses
    ]


def _noise(evaluation: Evaluation, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    spectra = {name: evaluation.spectra[name] for name in colours if name in evaluation.spectra}
    drawings = (
        (
            "Power spectrum",
            "Lines should lie on the real one: a line too high on the right is white noise that "
            "was added, too low on the right a signal that is too smooth in time.",
            figures.draw_spectra(
                {name: s.spectrum for name, s in spectra.items()}, evaluation.nyquist, colours
            ),
        ),
        (
            "Autocorrelation",
            "How much a volume resembles the ones before it; a synthetic line below the real one "
            "makes statistics on synthetic runs too optimistic.",
            figures.draw_autocorrelation(
                {name: s.autocorrelation for name, s in spectra.items()}, colours
            ),
        ),
        (
            "Smoothness",
            "One dot is one run, the bar the median; the clouds should overlap.",
            figures.draw_dots(
                {name: s.fwhm for name, s in spectra.items()},
                "FWHM (mm)",
                colours,
                "Smoothness of each run",
            ),
        ),
        (
            "Temporal standard deviation",
            "One dot is one run, the bar the median; it is the size of everything that moves, "
            "signal and noise.",
            figures.draw_dots(
                {name: s.temporal_sd for name, s in spectra.items()},
                "temporal SD (%)",
                colours,
                "Temporal standard deviation of each run",
            ),
        ),
    )
    return [
        {"name": name, "reading": reading, "drawing": Markup(drawing)}
        for name, reading, drawing in drawings
    ]


def _table(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "metric": row.metric,
            "generator": row.generator,
            "numbers": (row.value, row.ci_low, row.ci_high, row.ceiling, row.floor),
        }
        for row in metrics_table(evaluation).itertuples()
    ]
