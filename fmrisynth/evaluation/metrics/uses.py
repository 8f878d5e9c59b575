"""Name what synthetic data can be used for."""

from __future__ import annotations

from fmrisynth.evaluation.metrics.metric import Use

__all__ = [
    "CONNECTIVITY",
    "DECODERS",
    "GROUP_MAPS",
    "INDIVIDUALS",
    "PRIVACY",
    "TIME_SERIES",
]

GROUP_MAPS = Use(
    "Group maps and patterns", "contrasts of groups, comparison of conditions, teaching"
)
TIME_SERIES = Use("Time series of single runs", "testing pipelines and first-level statistics")
INDIVIDUALS = Use(
    "Differences between participants and runs", "studies of individuals, power analyses"
)
CONNECTIVITY = Use("Functional connectivity", "networks of the group")
DECODERS = Use("Training decoders", "models that are used on real data")
PRIVACY = Use(
    "Not giving away training data",
    "what the model adds is no copy; for carriers see Copying",
)
