"""Tell synthetic from real runs by a classifier that has not seen the participant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.classifier import ALL, FeatureTable, Told, tell_apart
from fmrisynth.evaluation.measures.resampling import NAN, bootstrap_counts, interval
from fmrisynth.evaluation.measures.window_classifier import (
    WINDOWS,
    WindowTable,
    tell_windows_apart,
)
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import PROPORTION, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import like_chance
from fmrisynth.evaluation.metrics.uses import TIME_SERIES

__all__ = ["FAMILY", "METRICS", "compare", "compare_real"]

_N_DRAWS = 4
_N_WINDOW_DRAWS = 2  # networks take longer

METRICS = (
    Metric(
        "told_apart",
        section="realism",
        bounds=PROPORTION,
        label="Synthetic told from real runs (AUC)",
        what="area under the curve of a ridge classifier that has not seen the participant: "
        "connectivity of parcels, their lags 1 to 3, log SD, ratio of their SD to that of their "
        "voxels, and tails; [windows]: of a network on windows of 30 s",
        ceiling="real training told from as many real held-out participants; 0.5 but for chance",
        floor="1, always",
        rule=Rule(
            "at most 0.7", like_chance(0.7), "two participants, and at least 8 supervoxels of 12 mm"
        ),
        use=TIME_SERIES,
        parts="Told from real runs, by what the classifier is given",
    ),
)
"""What this family computes."""


def compare(comparison: Comparison) -> Estimates:
    """Tell a generator's runs from the real ones of the same participants.

    New participants are paired with real ones at random, several times.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data.

    Returns
    -------
    dict
        ``told_apart`` with all features, ``told_apart[<kind>]`` with one
        kind of them (`fmrisynth.evaluation.measures.features.FEATURES`), and
        ``told_apart[windows]`` by a network that looks at windows. The
        interval is over participants, and no narrower than what permuted labels
        give. Empty with fewer than two participants.
    """
    measured = comparison.measurements
    if comparison.source not in measured.features or REAL not in measured.features:
        return {}
    real, synthetic = measured.features[REAL], measured.features[comparison.source]
    real_series, series = measured.windows[REAL], measured.windows[comparison.source]
    if comparison.unpaired:
        found = _tell_groups_apart(real, synthetic, comparison.random("pairs"))
        windows = _tell_groups_windows(real_series, series, comparison.random("pairs of windows"))
    else:
        names = sorted(set(real.participants) & set(synthetic.participants))
        pairs = [(name, name) for name in names]
        found = tell_apart(real, synthetic, pairs, comparison.random("permutations"))
        windows = _named(
            tell_windows_apart(real_series, series, pairs, comparison.random("windows"))
        )
    return _estimates(comparison, found | windows, _shared_control(comparison))


def compare_real(comparison: Comparison) -> Estimates:
    """Tell whole real training participants from held-out ones: the control, which is chance.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`; empty without two participants on either side.
    """
    found = _shared_control(comparison)
    return _estimates(comparison, found, found)


def _shared_control(comparison: Comparison) -> dict[str, Told]:
    return comparison.once("control", lambda: _control(comparison))


def _control(comparison: Comparison) -> dict[str, Told]:
    """Tell real held-out from real training participants."""
    measured = comparison.measurements
    if REAL not in measured.features or TRAINING not in measured.features:
        return {}
    first, second = (measured.features[name] for name in (REAL, TRAINING))
    found = _tell_groups_apart(first, second, comparison.shared_random("pairs"))
    one, other = (measured.windows[name] for name in (REAL, TRAINING))
    random = comparison.shared_random("pairs of windows")
    return found | _tell_groups_windows(one, other, random)


def _named(told: Told | None) -> dict[str, Told]:
    return {WINDOWS: told} if told is not None else {}


def _tell_groups_apart(
    first: FeatureTable, second: FeatureTable, rng: np.random.Generator
) -> dict[str, Told]:
    """Tell pairs of different participants apart, who are paired anew several times."""
    draws = [
        tell_apart(first, second, _pairs(first, second, rng), rng, whole=True)
        for _ in range(_N_DRAWS)
    ]
    return {kind: _mean([draw[kind] for draw in draws]) for kind in draws[0]}


def _tell_groups_windows(
    first: WindowTable, second: WindowTable, rng: np.random.Generator
) -> dict[str, Told]:
    """Do the same by windows."""
    draws = [
        tell_windows_apart(first, second, _pairs(first, second, rng), rng, whole=True)
        for _ in range(_N_WINDOW_DRAWS)
    ]
    told = [draw for draw in draws if draw is not None]
    return {WINDOWS: _mean(told)} if told else {}


def _pairs(
    first: FeatureTable | WindowTable, second: FeatureTable | WindowTable, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Pair as many participants of one source as of the other at random."""
    groups = [sorted(set(table.participants)) for table in (first, second)]
    size = min(map(len, groups))
    one, other = (rng.permutation(names)[:size] for names in groups)
    return [(str(a), str(b)) for a, b in zip(one, other, strict=True)]


def _mean(draws: Sequence[Told]) -> Told:
    """Average over pairings, pair by pair; chance is that of all."""
    return Told(
        np.mean([draw.auc for draw in draws], axis=0),
        np.concatenate([draw.chance for draw in draws]),
    )


def _estimates(
    comparison: Comparison, found: Mapping[str, Told], control: Mapping[str, Told]
) -> Estimates:
    estimates = {}
    for kind, told in found.items():
        name = "told_apart" if kind == ALL else f"told_apart[{kind}]"
        counts = bootstrap_counts(len(told.auc), comparison.random(f"bootstrap of {name}"))
        value = float(told.auc.mean())
        samples = counts @ told.auc / len(told.auc)
        low, high = interval(value, samples, len(told.auc), (0.0, 1.0))
        # Classifiers share most of their training runs: pairs are less independent than they look.
        below, above = (float(end) for end in np.percentile(told.chance - 0.5, [2.5, 97.5]))
        limits = max(min(low, value - above), 0.0), min(max(high, value - below), 1.0)
        ceiling = float(control[kind].auc.mean()) if kind in control else NAN
        estimates[name] = Estimate(value, *limits, ceiling, 1.0)
    return estimates


FAMILY = Family(
    "told apart",
    "Can a classifier tell synthetic from real runs?",
    METRICS,
    compare,
    compare_real,
)
