"""Draw the maps of the group report as strips of slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.second_level import P_VALUE
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.reports.slices import draw_slices

__all__ = ["contrasts", "features", "maps", "trial_types", "z_maps"]

Section = list[dict[str, Any]]

MOST_TRIAL_TYPES = 24
"""Trial types whose own maps are drawn: those with the largest real effects."""

Z_THRESHOLD = float(norm.isf(P_VALUE))
"""Smaller z are not drawn; the same threshold as that of their overlap."""

FEATURE_THRESHOLD = 0.5
"""Smaller differences of features (standard deviations) are not drawn."""

_FEATURE_LIMIT = 2.0
_CONTROL = "real, training"


def maps(evaluation: Evaluation) -> Section:
    """Draw the strips of slices of each condition, all of its maps on one scale."""
    return _effects(evaluation, evaluation.conditions.names, evaluation.maps)


def contrasts(evaluation: Evaluation) -> Section:
    """Draw the maps of the user's contrasts, like those of the conditions."""
    return _effects(evaluation, evaluation.conditions.contrasts, evaluation.contrast_maps)


def z_maps(evaluation: Evaluation) -> Section:
    """Draw the second-level maps of conditions and contrasts, z over participants."""
    canvas = _Canvas.of(evaluation)
    sections = []
    for names, maps in (
        (evaluation.conditions.names, evaluation.z_maps),
        (evaluation.conditions.contrasts, evaluation.contrast_z_maps),
    ):
        for c, name in enumerate(names):
            rows = [
                (_said(source), maps[source][c])
                for source in (REAL, *evaluation.generators)
                if source in maps and np.isfinite(maps[source][c]).any()
            ]
            if rows:
                sections.append(canvas.strips(name, rows, threshold=Z_THRESHOLD))
    return sections


def features(evaluation: Evaluation) -> Section:
    """Draw in what runs differ from real ones, in standard deviations, all on one scale."""
    canvas = _Canvas.of(evaluation)
    tested = evaluation.feature_maps.get(evaluation.generators[0], {})
    return [
        canvas.strips(
            kind,
            [
                (_CONTROL if source == TRAINING else source, by_kind[kind])
                for source, by_kind in evaluation.feature_maps.items()
            ],
            threshold=FEATURE_THRESHOLD,
            limit=_FEATURE_LIMIT,
        )
        for kind in tested
    ]


def trial_types(evaluation: Evaluation) -> Section:
    """Draw the maps of single trial types, where conditions consist of several."""
    pairs = evaluation.conditions.trial_types
    if len(pairs) == len(evaluation.conditions.names):
        return []
    tested = evaluation.generators[0]
    real, synthetic = evaluation.trial_type_maps[REAL], evaluation.trial_type_maps[tested]
    strength = np.nan_to_num(np.abs(real)).mean(axis=1)
    shown = sorted(np.argsort(strength)[::-1][:MOST_TRIAL_TYPES])
    canvas = _Canvas.of(evaluation)
    return [
        canvas.strips(": ".join(pairs[k]), [(_said(REAL), real[k]), (tested, synthetic[k])])
        for k in shown
    ]


def _effects(
    evaluation: Evaluation, names: Sequence[str], maps: Mapping[str, np.ndarray]
) -> Section:
    tested = evaluation.generators[0]
    canvas = _Canvas.of(evaluation)
    sections = []
    for c, name in enumerate(names):
        rows = [(_said(source), maps[source][c]) for source in (REAL, *evaluation.generators)]
        rows.append((f"{tested} − real", maps[tested][c] - maps[REAL][c]))
        sections.append(canvas.strips(name, rows))
    return sections


def _said(source: str) -> str:
    return "real, held out" if source == REAL else source


@dataclass(frozen=True)
class _Canvas:
    """The anatomy that maps are drawn on."""

    mask: np.ndarray
    affine: np.ndarray
    background: np.ndarray

    @classmethod
    def of(cls, evaluation: Evaluation) -> _Canvas:
        mask = np.asarray(evaluation.mask.dataobj) > 0
        return cls(mask, evaluation.mask.affine, np.asarray(evaluation.background.dataobj))

    def strips(
        self,
        name: str,
        rows: Sequence[tuple[str, np.ndarray]],
        threshold: float | None = None,
        limit: float | None = None,
    ) -> dict[str, Any]:
        """Draw maps (V,) below each other, without a limit on the scale of the first.

        It is the real one: a generator must not set its own scale. Without a
        threshold the smallest 30 % of the scale are left transparent.
        """
        if limit is None:
            real = rows[0][1]
            limit = float(np.nanpercentile(np.abs(real), 99.5)) if np.isfinite(real).any() else 1.0
            limit = limit or 1.0
        if threshold is None:
            threshold = 0.3 * limit
        limit = max(limit, 1.5 * threshold)
        strips = []
        for label, values in rows:
            volume = np.zeros(self.mask.shape)
            volume[self.mask] = np.nan_to_num(values)
            drawn = draw_slices(
                self.background, volume, self.affine, limit=limit, threshold=threshold
            )
            strips.append({"label": label, "image": drawn.image, "heights": drawn.heights})
        return {"name": name, "limit": limit, "strips": strips}
