"""Render an evaluation as a self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.export import metrics_table
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.reports import brain_maps, drawings, sections
from fmrisynth.reports.citations import methods, references
from fmrisynth.reports.slices import png_uri
from fmrisynth.reports.tables import section_tables, uses, verdict, verdict_overview
from fmrisynth.reports.templating import environment
from fmrisynth.runtime.files import write_bytes

__all__ = ["render_group_report", "write_citation", "write_group_report", "write_page"]


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
        names to values), ``notices`` (sequence of str, shown on top),
        ``figures`` (mapping of titles to PNG files, e.g. the model's training
        curves), ``skill`` (rows with theta, part, gain, ci_low and ci_high: what each
        part of the model adds to the prediction of held-out participants).
    """
    write_page(render_group_report(evaluation, context), target)


def write_citation(evaluation: Evaluation, target: Path, versions: Mapping[str, str]) -> None:
    """Write the methods paragraphs with their references, to be copied into a paper.

    Parameters
    ----------
    evaluation : Evaluation
        What was done.
    target : Path
        ``CITATION.md``; it appears only when complete.
    versions : mapping
        Program → version.
    """
    paragraphs = methods(evaluation)
    text = (
        environment(escape=False)
        .get_template("citation.md")
        .render(
            methods=paragraphs,
            references=references(paragraphs),
            settings=evaluation.settings,
            versions=versions,
        )
    )
    write_page(text, target)


def write_page(text: str, target: Path) -> None:
    """Write a page as UTF-8; what of a file's name is no character becomes a question mark."""
    write_bytes(target, text.encode("utf-8", errors="replace"))


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
    notices = [*context.get("notices", ()), *evaluation.notices]
    curves = _pictures(context.get("figures", {}), notices)
    paragraphs = methods(evaluation)
    return (
        environment()
        .get_template("group.html")
        .render(
            title=context.get("title", "Synthetic task fMRI: group report"),
            dataset=context.get("dataset", ""),
            notices=notices,
            evaluation=evaluation,
            generators=evaluation.generators,
            tested=evaluation.generators[0],
            section_tables=section_tables(evaluation),
            curves=curves,
            skill=_skill_table(context.get("skill", ())),
            network_adds=_network_adds(context.get("skill", ())),
            methods=paragraphs,
            references=references(paragraphs),
            table=_table(evaluation),
            nothing_held_out=not evaluation.training and bool(evaluation.notices),
            settings={**context.get("settings", {}), **evaluation.settings},
            versions=context.get("versions", {}),
            **_verdicts(evaluation),
            **_drawings(evaluation),
        )
    )


def _skill_table(skill: Sequence[Any]) -> dict[str, list[Any]]:
    """Arrange the rows of a model's skill by part, in the order of the angles."""
    table: dict[str, list[Any]] = {}
    for row in skill:
        table.setdefault(row.part, []).append(row)
    return table


def _network_adds(skill: Sequence[Any]) -> list[float]:
    """List the angles at which the network's gain excludes zero."""
    return [row.theta for row in skill if row.part == "backbone" and row.ci_low > 0]


def _verdicts(evaluation: Evaluation) -> dict[str, Any]:
    """Collect what the top of the page says."""
    generators = evaluation.generators
    return {
        "verdicts": [(name, verdict(evaluation, name)) for name in generators],
        "overview": verdict_overview(evaluation) if len(generators) > 1 else [],
        "uses": uses(evaluation, generators[0]),
    }


def _drawings(evaluation: Evaluation) -> dict[str, Any]:
    """Draw all pictures of the page, by section."""
    sources = (REAL, *evaluation.generators)
    colours = {name: drawings.colour_of(i) for i, name in enumerate(sources)}
    return {
        "colours": colours,
        "real_colour": drawings.COLOURS[0],
        "both_colour": drawings.COLOURS[1],
        "maps": brain_maps.maps(evaluation),
        "trial_type_maps": brain_maps.trial_types(evaluation),
        "z_maps": brain_maps.z_maps(evaluation),
        "z_threshold": brain_maps.Z_THRESHOLD,
        "contrasts": brain_maps.contrasts(evaluation),
        "feature_maps": brain_maps.features(evaluation),
        "feature_threshold": brain_maps.FEATURE_THRESHOLD,
        "rdms": sections.rdms(evaluation),
        "identification": sections.identification(evaluation),
        "courses": sections.courses(evaluation, colours),
        "noise": sections.noise(evaluation, colours),
        "participants": sections.participants(evaluation),
        "components": sections.networks(evaluation, colours),
        "connectivity": sections.connectivity(evaluation),
        "diversity": sections.diversity(evaluation),
        "copying": sections.copying(evaluation),
        "decoding": sections.decoding(evaluation),
    }


def _pictures(files: Mapping[str, Path], notices: list[str]) -> list[dict[str, str]]:
    """Inline PNG files; one that cannot be shown becomes a notice."""
    shown = []
    for title, path in files.items():
        picture = png_uri(path)
        if picture is None:
            notices.append(
                f"The picture “{title}” is left out: {path} is missing or no PNG of "
                "reasonable size."
            )
        else:
            shown.append({"title": title, "image": picture})
    return shown


def _table(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "metric": row.metric,
            "generator": row.generator,
            "numbers": (row.value, row.ci_low, row.ci_high, row.ceiling, row.floor),
        }
        for row in metrics_table(evaluation).itertuples()
    ]
