"""Tell synthetic from real runs by a classifier that has not seen the participant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.classifier import ALL, FeatureTable, Told, tell_apart
from fmrisynth.evaluation.measures.resampling import NAN, bootstrap_counts, interval
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import like_chance
from fmrisynth.evaluation.metrics.uses import TIME_SERIES

__all__ = ["FAMILY", "METRICS", "compare", "compare_real"]

_N_DRAWS = 4

METRICS = (
    Metric(
        "told_apart",
        section="realism",
        label="Synthetic told from real runs (AUC)",
        what="area under the curve of a ridge classifier that has not seen the participant: "
        "connectivity of parcels, their lags 1 to 3, log SD, ratio of their SD to that of their "
        "voxels, and tails",
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
        ``told_apart`` with all features, and ``told_apart[<kind>]`` with one
        kind of them (`fmrisynth.evaluation.measures.features.FEATURES`). The
        interval is over participants, and no narrower than what permuted labels
        give. Empty with fewer than two participants.
    """
    tables = comparison.measurements.features
    if comparison.source not in tables or REAL not in tables:
        return {}
    real, synthetic = tables[REAL], tables[comparison.source]
    if comparison.unpaired:
        found = _tell_groups_apart(real, synthetic, comparison.random("pairs"))
    else:
        names = sorted(set(real.participants) & set(synthetic.participants))
        rng = comparison.random("permutations")
        found = tell_apart(real, synthetic, [(name, name) for name in names], rng)
    control = comparison.once("control", lambda: _control(comparison))
    return _estimates(comparison, found, control)


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
    found = comparison.once("control", lambda: _control(comparison))
    return _estimates(comparison, found, found)


def _control(comparison: Comparison) -> dict[str, Told]:
    """Tell real held-out from real training participants."""
    tables = comparison.measurements.features
    if REAL not in tables or TRAINING not in tables:
        return {}
    return _tell_groups_apart(tables[REAL], tables[TRAINING], comparison.shared_random("pairs"))


def _tell_groups_apart(
    first: FeatureTable, second: FeatureTable, rng: np.random.Generator
) -> dict[str, Told]:
    """Tell pairs of different participants apart, who are paired anew several times."""
    groups = [sorted(set(table.participants)) for table in (first, second)]
    size = min(map(len, groups))
    draws = []
    for _ in range(_N_DRAWS):
        one, other = (rng.permutation(names)[:size] for names in groups)
        pairs = [(str(a), str(b)) for a, b in zip(one, other, strict=True)]
        draws.append(tell_apart(first, second, pairs, rng, whole=True))
    return {
        kind: Told(
            np.mean([draw[kind].auc for draw in draws], axis=0),
            np.concatenate([draw[kind].chance for draw in draws]),
        )
        for kind in draws[0]
    }


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
