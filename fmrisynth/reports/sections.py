"""Draw the pictures of each section of the group report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.reports import drawings
from fmrisynth.reports.slices import draw_large_matrix

__all__ = [
    "connectivity",
    "copying",
    "courses",
    "decoding",
    "diversity",
    "identification",
    "networks",
    "noise",
    "participants",
    "rdms",
]

Section = list[dict[str, Any]]


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
                drawings.draw_matrix(
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
                drawings.draw_matrix(
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
            "region": course.region,
            "drawing": Markup(
                drawings.draw_time_course(
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
    """Draw the measures of the time series."""
    spectra = {name: evaluation.spectra[name] for name in colours if name in evaluation.spectra}
    pictures = (
        (
            "Power spectrum",
            "Lines should lie on the real one: a line too high on the right is white noise that "
            "was added, too low on the right a signal that is too smooth in time.",
            drawings.draw_spectra(
                {name: s.spectrum for name, s in spectra.items()}, evaluation.nyquist, colours
            ),
        ),
        (
            "Autocorrelation",
            "How much a volume resembles the ones before it; a synthetic line below the real one "
            "makes statistics on synthetic runs too optimistic.",
            drawings.draw_autocorrelation(
                {name: s.autocorrelation for name, s in spectra.items()}, colours
            ),
        ),
        (
            "Smoothness",
            "One dot is one run, the bar the median; the clouds should overlap.",
            drawings.draw_dots(
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
            drawings.draw_dots(
                {name: s.temporal_sd for name, s in spectra.items()},
                "temporal SD (%)",
                colours,
                "Temporal standard deviation of each run",
            ),
        ),
    )
    return [
        {"name": name, "reading": reading, "drawing": Markup(drawing)}
        for name, reading, drawing in pictures
    ]


def participants(evaluation: Evaluation) -> Section:
    """Draw the correlation of participants' maps after the group map is taken out."""
    sources = [*evaluation.generators, REAL]
    labels = {name: f"{name} (rows) and real" for name in evaluation.generators}
    labels[REAL] = "one half of the real runs (rows) and the other"
    shown = [
        name
        for name in sources
        if name in evaluation.participant_maps
        and len(evaluation.participant_maps[name]) == len(evaluation.held_out)
    ]
    most = max([0.2, *(np.nanmax(np.abs(evaluation.participant_maps[name])) for name in shown)])
    return [
        {
            "label": labels[name],
            "drawing": Markup(
                drawings.draw_matrix(
                    evaluation.participant_maps[name],
                    evaluation.held_out,
                    label=f"Participants' maps: {labels[name]}",
                    low=-most,
                    high=most,
                )
            ),
        }
        for name in shown
    ]


def networks(evaluation: Evaluation, colours: Mapping[str, str]) -> Markup | None:
    """Draw the spatial spectrum."""
    shares = {
        name: evaluation.networks[name].eigenvalues
        for name in colours
        if name in evaluation.networks
    }
    return Markup(drawings.draw_components(shares, colours)) if shares else None


def connectivity(evaluation: Evaluation) -> dict[str, Any]:
    """Draw the mean connectivity of each source, parcels in the real data's order."""
    edges = {
        name: np.tanh(evaluation.networks[name].edges.mean(axis=0))
        for name in (REAL, *evaluation.generators)
        if name in evaluation.networks and len(evaluation.networks[name].edges)
    }
    if REAL not in edges or len(edges[REAL]) < 3:
        return {}
    limit = float(np.percentile(np.abs(edges[REAL]), 98)) or 1.0
    real = squareform(edges[REAL], checks=False)
    order = leaves_list(linkage(1.0 - edges[REAL], "average"))
    matrices = []
    for name, values in edges.items():
        matrix = (
            squareform(values, checks=False)
            if len(values) == len(edges[REAL])
            else np.full_like(real, np.nan)
        )
        np.fill_diagonal(matrix, 1.0)
        matrices.append(
            {"label": name, "image": draw_large_matrix(matrix[np.ix_(order, order)], limit)}
        )
    return {"limit": limit, "n_parcels": len(real), "matrices": matrices}


def copying(evaluation: Evaluation) -> Section:
    """Draw how near each synthetic run is to training and to held-out runs."""
    sections = []
    for name, audit in evaluation.copying.items():
        if not np.isfinite(audit.to_training).any():
            continue
        values = {
            "training": audit.to_training,
            "held out": audit.to_held_out,
            "real pairs": audit.real_pairs,
        }
        colours = dict(
            zip(values, (drawings.COLOURS[1], drawings.COLOURS[0], "#888888"), strict=True)
        )
        sections.append(
            {
                "label": name,
                "limit": audit.limit,
                "drawing": Markup(
                    drawings.draw_dots(
                        values,
                        "correlation with the nearest real run",
                        colours,
                        f"Nearest real runs of the runs of {name}",
                        limit=audit.limit,
                    )
                ),
            }
        )
    return sections


def diversity(evaluation: Evaluation) -> Section:
    """Draw how alike the runs of a generator are, beside real runs of different participants."""
    sections = []
    for name, audit in evaluation.copying.items():
        if len(audit.synthetic_pairs) and len(audit.real_pairs):
            values = {"synthetic": audit.synthetic_pairs, "real": audit.real_pairs}
            colours = {"synthetic": drawings.COLOURS[1], "real": drawings.COLOURS[0]}
            drawing = drawings.draw_dots(
                values, "correlation of two runs", colours, f"Likeness of the runs of {name}"
            )
            sections.append({"label": name, "drawing": Markup(drawing)})
    return sections


def decoding(evaluation: Evaluation) -> Section:
    """Draw the learning curves of decoding for each generator."""
    sections = []
    for name in evaluation.generators:
        estimates = evaluation.estimates[name]
        if "decoding_synthetic" not in estimates:
            continue
        sizes = [
            int(metric[len("decoding_real[") : -1])
            for metric in estimates
            if metric.startswith("decoding_real[")
        ]
        rows = {"real": [estimates[f"decoding_real[{n}]"] for n in sizes]}
        if both := estimates.get("decoding_both"):
            rows["both"] = [both]
        curves = {
            label: (
                np.array(sizes[-len(row) :]),
                *(np.array([getattr(e, part) for e in row]) for part in ("value", "low", "high")),
            )
            for label, row in rows.items()
        }
        alone = estimates["decoding_synthetic"]
        sections.append(
            {
                "label": name,
                "alone": alone,
                "drawing": Markup(
                    drawings.draw_curves(
                        curves,
                        {"real": drawings.COLOURS[0], "both": drawings.COLOURS[1]},
                        alone.floor,
                    )
                ),
            }
        )
    return sections
