"""The figures that stand below each section's pictures, and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.metrics.registry import meaning_of
from fmrisynth.evaluation.metrics.verdict import Judgement, judge
from fmrisynth.evaluation.result import Evaluation

__all__ = ["KEY_FIGURES", "figure_table", "uses", "verdict", "verdict_overview"]

KEY_FIGURES: Mapping[str, tuple[str, ...]] = {
    "maps": ("corr", "corr_trial_type", "slope", "slope_trial_type", "dice", "dice_z"),
    "contrasts": (
        "corr_contrast",
        "slope_contrast",
        "dice_contrast",
        "dice_z_contrast",
        "rsa_contrast",
        "top1_contrast",
    ),
    "rdms": (
        "rsa",
        "rsa_pearson",
        "rsa_pairs",
        "rsa_trial_type",
        "rsa_pearson_trial_type",
        "rsa_pairs_trial_type",
    ),
    "identification": ("top1", "top1_trial_type"),
    "courses": (
        "course_correlation",
        "course_canonical",
        "peak_latency_error",
        "undershoot_error",
    ),
    "noise": (
        "temporal_sd_ratio",
        "tsnr_ratio",
        "lag1_ratio",
        "fwhm_ratio",
        *(f"power_q{quarter}" for quarter in range(1, 5)),
    ),
    "individuals": ("individual_identification", "individual_correlation"),
    "variance": ("variance_participant", "variance_phase_encoding", "variance_task"),
    "networks": (
        "fc_correlation",
        "fc_sd_ratio",
        "fc_same",
        "fc_different",
        "fc_fingerprint",
        "pca_dimension_ratio",
    ),
    "diversity": (
        "diversity_participants_ratio",
        "map_variance_ratio",
        "diversity_runs_ratio",
        "diversity_samples_ratio",
        "sample_correlation",
        "sample_similarity",
    ),
    "copying": ("copied_share", "nearest_training", "membership_auc"),
    "use": ("decoding_synthetic",),
}
"""Section → its figures, in the order of the table."""

_ABSOLUTE: Mapping[str, tuple[str, ...]] = {
    "noise": ("temporal_sd", "tsnr", "fwhm", *(f"lag{lag}" for lag in range(1, 6))),
    "networks": ("fc_sd",),
}
"""Section → figures that only experts ask for, in a table that is folded."""

_BY_PART: Mapping[str, Mapping[str, str]] = {
    "maps": {
        "corr": "Corr by condition",
        "slope": "Effect size by condition",
        "corr_trial_type": "Corr by trial type",
    },
    "contrasts": {"corr_contrast": "Corr by contrast", "slope_contrast": "Effect size by contrast"},
    "courses": {
        "course_correlation": "Correlation of courses by condition",
        "peak_latency": "Peak latency by condition",
        "undershoot": "Undershoot by condition",
    },
    "use": {
        "decoding_real": "Trained on real participants alone, by their number",
        "decoding_both": "Trained on real and synthetic participants, by the number of real ones",
        "decoding_gain": "Gain by the synthetic ones, by the number of real ones",
    },
}
"""Section → metric whose parts, ``metric[part]``, have a table of their own → its caption."""

_LABELS: Mapping[str, str] = {
    "temporal_sd_ratio": "Temporal standard deviation, synthetic / real",
    "tsnr_ratio": "Temporal signal-to-noise ratio, synthetic / real",
    "lag1_ratio": "Autocorrelation at lag 1, synthetic / real",
    "fwhm_ratio": "Spatial smoothness, synthetic / real",
    "fc_sd_ratio": "Spread of connectivity within a run, synthetic / real",
    "fc_fingerprint": "Fingerprint: the first of these two less the second",
    "peak_latency_error": "Error of the time of the peak, s",
    "undershoot_error": "Error of the depth after the response over its peak",
}
"""Metric → what it is called where its meaning alone does not say what it is of."""

_LEVELS = {"_trial_type": "trial types", "_contrast": "contrasts"}

_USES: Sequence[tuple[str, str, tuple[str, ...]]] = (
    (
        "Group maps and patterns",
        "contrasts of groups, comparison of conditions, teaching",
        ("corr", "rsa", "top1", "slope"),
    ),
    (
        "Time series of single runs",
        "testing pipelines and first-level statistics",
        ("temporal_sd_ratio", "lag1_ratio", "fwhm_ratio", "course_correlation"),
    ),
    ("Functional connectivity", "networks of the group", ("fc_correlation",)),
    (
        "Differences between people and runs",
        "studies of individuals, power analyses",
        (
            "individual_correlation",
            "diversity_participants_ratio",
            "diversity_runs_ratio",
            "diversity_samples_ratio",
            "sample_similarity",
            "fc_fingerprint",
        ),
    ),
    ("Training decoders", "models that are used on real data", ("decoding_synthetic",)),
    (
        "Not giving away training data",
        "what the model adds is no copy; for carriers see Copying",
        ("copied_share", "membership_auc"),
    ),
)
"""What the requirements speak for: name, meant for, metrics of the rules."""


def figure_table(evaluation: Evaluation, section: str) -> dict[str, Any]:
    """Tabulate the figures of a section.

    Parameters
    ----------
    evaluation : Evaluation
        What is shown.
    section : str
        Key of `KEY_FIGURES`.

    Returns
    -------
    dict
        ``rows`` (`_row`), and ``details``: further tables, each with
        ``caption`` and ``rows``. Figures that no generator has are left out.
    """
    metrics = _metrics(evaluation)
    rows = [_row(evaluation, m) for m in KEY_FIGURES[section] if m in metrics]
    details = []
    absolute = [_row(evaluation, m) for m in _ABSOLUTE.get(section, ()) if m in metrics]
    if absolute:
        details.append({"caption": "In absolute units", "rows": absolute})
    for base, caption in _BY_PART.get(section, {}).items():
        parts = [m for m in metrics if m.startswith(f"{base}[") and m.endswith("]")]
        if parts:
            found = [_row(evaluation, m, m[len(base) + 1 : -1]) for m in parts]
            details.append({"caption": caption, "rows": found})
    return {"rows": rows, "details": details}


def verdict(evaluation: Evaluation, generator: str) -> list[dict[str, Any]]:
    """List the requirements with what was found, for one generator."""
    rows = []
    for judgement in _judged(evaluation, generator):
        figure = judgement.figure
        rows.append(
            {
                "metric": judgement.rule.metric,
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


def verdict_overview(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Set the generators side by side: a row for each requirement, a cell for each generator."""
    judged = {
        name: {j.rule.metric: j for j in _judged(evaluation, name)}
        for name in evaluation.generators
    }
    rules = {j.rule.metric: j.rule for found in judged.values() for j in found.values()}
    rows = []
    for metric, rule in rules.items():
        cells = []
        for name in evaluation.generators:
            judgement = judged[name].get(metric)
            cells.append(
                {
                    "value": judgement.figure.value if judgement else math.nan,
                    "passed": judgement.passed if judgement else None,
                }
            )
        again = evaluation.figures[REAL].get(metric)
        rows.append(
            {
                "label": rule.label,
                "asked": rule.asked,
                "cells": cells,
                "real": again.value if again else math.nan,
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
    grouped = {metric for _, _, metrics in _USES for metric in metrics}
    others = tuple(j.rule.metric for j in judged if j.rule.metric not in grouped)
    found = []
    for name, meant, metrics in (*_USES, ("Further requirements", "", others)):
        mine = [j for j in judged if j.rule.metric in metrics]
        if not mine:
            continue
        missed = [j.rule.label for j in mine if j.passed is False]
        unknown = [j.rule.label for j in mine if j.passed is None]
        if missed:
            state, said = "bad", "no: " + "; ".join(missed)
            if unknown:
                said += f" (not judged: {'; '.join(unknown)})"
        elif len(unknown) == len(mine):
            state, said = "soft", "cannot be judged on these data"
        elif unknown:
            state, said = "good", "yes, as far as it can be judged; not: " + "; ".join(unknown)
        else:
            state, said = "good", "yes"
        found.append({"name": name, "meant": meant, "state": state, "said": said})
    return found


def _judged(evaluation: Evaluation, generator: str) -> tuple[Judgement, ...]:
    return judge(evaluation.figures[generator], evaluation.figures[REAL])


def _metrics(evaluation: Evaluation) -> list[str]:
    """Names of all figures that some generator has, in the order of the first."""
    found = (
        metric
        for name in evaluation.generators
        for metric, figure in evaluation.figures[name].items()
        if math.isfinite(figure.value)
    )
    return list(dict.fromkeys(found))


def _row(evaluation: Evaluation, metric: str, part: str = "") -> dict[str, Any]:
    """One figure: a cell for each generator, then its ceiling, floor and that of real data.

    Ceilings are drawn anew for each generator; the tested one's stand here.
    A part of a figure is called by its own name, the figure by its meaning.
    """
    cells = [evaluation.figures[name].get(metric) for name in evaluation.generators]
    first = next(figure for figure in cells if figure is not None)
    again = evaluation.figures[REAL].get(metric)
    found = [f for f in cells if f is not None]
    meaning = meaning_of(metric)
    limits = (("ceiling", meaning.ceiling), ("floor", meaning.floor))
    said = [f"{name}: {text}" for name, text in limits if not text.startswith("none")]
    return {
        "label": part or _label(metric, meaning.figure),
        "limits": "" if part else "; ".join(said),
        "cells": cells,
        "real": again.value if again else math.nan,
        "ceiling": first.ceiling,
        "floor": first.floor,
        "digits": _digits([v for f in found for v in (f.value, f.high, f.ceiling)]),
    }


def _label(metric: str, meaning: str) -> str:
    """Call a figure by its meaning, with the kind of its conditions."""
    label = _LABELS.get(metric, meaning)
    for ending, kind in _LEVELS.items():
        if metric.endswith(ending):
            label = (
                label.replace("conditions", kind) if "conditions" in label else (f"{label}, {kind}")
            )
    return label[0].upper() + label[1:]


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
