"""The picture sections of the group report, as plain values for the templates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from fmrisynth.evaluation.result import REAL, TRAINING, Evaluation
from fmrisynth.evaluation.variance import FACTORS
from fmrisynth.reports import figures
from fmrisynth.reports.slices import draw_slices

__all__ = [
    "copying",
    "courses",
    "decoding",
    "identification",
    "maps",
    "networks",
    "noise",
    "participants",
    "rdms",
    "variance",
]

Section = list[dict[str, Any]]


def maps(evaluation: Evaluation) -> Section:
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
            drawn = draw_slices(background, volume, affine, limit=limit, threshold=0.3 * limit)
            strips.append({"label": label, "image": drawn.image, "heights": drawn.heights})
        sections.append({"name": name, "limit": limit, "strips": strips})
    return sections


def rdms(evaluation: Evaluation) -> Section:
    """Draw the dissimilarity matrices, all on one scale."""
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


def identification(evaluation: Evaluation) -> Section:
    """Draw the correlation of every map with every real one."""
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


def courses(evaluation: Evaluation, colours: Mapping[str, str]) -> Section:
    """Draw the mean responses; training data chose the regions and are not shown."""
    return [
        {
            "name": course.condition,
            "drawing": Markup(
                figures.draw_time_course(
                    course.times,
                    {name: course.curves[name] for name in colours if name in course.curves},
                    course.prediction,
                    course.duration,
                    colours=colours,
                    label=f"Mean response to {course.condition}",
                )
            ),
        }
        for course in evaluation.time_courses
    ]


def noise(evaluation: Evaluation, colours: Mapping[str, str]) -> Section:
    """Draw the figures of the time series."""
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


def participants(evaluation: Evaluation) -> Section:
    """Draw the correlation of participants' maps after the group map is taken out."""
    sources = [*evaluation.generators, REAL]
    labels = {name: f"{name} (rows) and real" for name in evaluation.generators}
    labels[REAL] = "one half of the real runs (rows) and the other"
    return [
        {
            "label": labels[name],
            "drawing": Markup(
                figures.draw_matrix(
                    evaluation.participant_maps[name],
                    evaluation.held_out,
                    label=f"Participants' maps: {labels[name]}",
                    low=-0.1,
                    high=1.0,
                )
            ),
        }
        for name in sources
        if name in evaluation.participant_maps
        and len(evaluation.participant_maps[name]) == len(evaluation.held_out)
    ]


def networks(evaluation: Evaluation, colours: Mapping[str, str]) -> dict[str, Any]:
    """Draw the spatial spectrum and list the figures of connectivity."""
    if not evaluation.networks:
        return {}
    shares = {name: evaluation.networks[name].eigenvalues for name in colours}
    names = ("fc_correlation", "fc_sd", "fc_same", "fc_different")
    return {
        "drawing": Markup(figures.draw_components(shares, colours)),
        "rows": [
            {
                "label": name,
                "numbers": [evaluation.figures[name][key].value for key in names],
            }
            for name in evaluation.generators
        ],
        "real": [evaluation.figures[evaluation.generators[0]][key].ceiling for key in names],
    }


def variance(evaluation: Evaluation) -> list[tuple[str, list[float]]]:
    """List the share of the variance of each factor, source by source."""
    rows = []
    for name in (REAL, *evaluation.generators):
        found = [evaluation.figures[name].get(f"variance_{factor}") for factor in FACTORS]
        rows.append((name, [figure.value if figure else math.nan for figure in found]))
    return rows


def copying(evaluation: Evaluation) -> Section:
    """Draw how near each synthetic run is to training and to held-out runs."""
    sections = []
    for name, audit in evaluation.copying.items():
        if not len(audit.to_training):
            continue
        values = {
            "training": audit.to_training,
            "held out": audit.to_held_out,
            "real pairs": audit.real_pairs,
        }
        colours = dict(
            zip(values, (figures.COLOURS[1], figures.COLOURS[0], "#888888"), strict=True)
        )
        sections.append(
            {
                "label": name,
                "limit": audit.limit,
                "drawing": Markup(
                    figures.draw_dots(
                        values,
                        "correlation with the nearest real run",
                        colours,
                        f"Nearest real runs of the runs of {name}",
                    )
                ),
            }
        )
    return sections


def decoding(evaluation: Evaluation) -> Section:
    """Draw the learning curves of decoding for each generator."""
    sections = []
    for name in evaluation.generators:
        found = evaluation.figures[name]
        if "decoding_synthetic" not in found:
            continue
        sizes = [
            int(metric[len("decoding_real[") : -1])
            for metric in found
            if metric.startswith("decoding_real[")
        ]
        curves = {
            label: tuple(
                np.array([getattr(found[f"{metric}[{n}]"], part) for n in sizes])
                for part in ("value", "low", "high")
            )
            for label, metric in (("real", "decoding_real"), ("both", "decoding_both"))
        }
        alone = found["decoding_synthetic"]
        sections.append(
            {
                "label": name,
                "alone": alone,
                "drawing": Markup(
                    figures.draw_curves(
                        sizes,
                        curves,
                        {"real": figures.COLOURS[0], "both": figures.COLOURS[1]},
                        alone.floor,
                    )
                ),
            }
        )
    return sections
