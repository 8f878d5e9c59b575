"""Compare group maps of synthetic and real participants: correlation, RSA, Top-1 and slope.

Legend: P participants, Q training participants, C conditions, N coordinates or voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.maps import MapTable, group_mean
from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.measures.amplitude import effect_slope
from fmrisynth.evaluation.measures.correlation import map_correlation
from fmrisynth.evaluation.measures.identification import identification_matrix, top1
from fmrisynth.evaluation.measures.resampling import (
    N_DRAWS,
    N_SHUFFLES,
    NAN,
    average_of,
    bootstrap_counts,
    finite_mean,
    interval,
    matched_draws,
)
from fmrisynth.evaluation.measures.rsa import rsa
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import CORRELATION, PROPORTION, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import as_large_as_real_effects, share_of_ceiling
from fmrisynth.evaluation.metrics.uses import GROUP_MAPS

__all__ = ["FAMILY", "METRICS", "compare", "compare_real", "measure_maps"]

_OTHERS = "the same between as many real training and real held-out participants"
_SHUFFLED = "conditions shuffled"

METRICS = (
    Metric(
        "corr",
        section="maps",
        bounds=CORRELATION,
        label="Activation maps (Corr)",
        what="correlation of group maps, mean over conditions",
        ceiling=_OTHERS,
        floor=_SHUFFLED,
        rule=Rule(
            "at least 0.9 of its ceiling, and no more than the same participants scanned again "
            "would have",
            share_of_ceiling(0.9, at_most_retest=True),
            "a condition that varies over the brain",
        ),
        use=GROUP_MAPS,
        parts="Corr by {kind}",
    ),
    Metric(
        "rsa",
        section="rdms",
        bounds=CORRELATION,
        label="Structure between conditions (RSA)",
        what="Spearman correlation of dissimilarities",
        ceiling=_OTHERS,
        floor=_SHUFFLED,
        rule=Rule(
            "at least 0.85 of its ceiling, where the interval can tell",
            share_of_ceiling(0.85, noisy=True),
            "three conditions",
        ),
        use=GROUP_MAPS,
    ),
    Metric(
        "rsa_pearson",
        section="rdms",
        bounds=CORRELATION,
        label="Structure between conditions (RSA, Pearson)",
        what="Pearson correlation of dissimilarities",
        ceiling=_OTHERS,
        floor=_SHUFFLED,
    ),
    Metric(
        "rsa_pairs",
        section="rdms",
        label="Pairs of conditions",
        what="pairs of conditions that RSA rests on",
        ceiling="none: a number, not a score",
        floor="none: a number",
    ),
    Metric(
        "top1",
        section="identification",
        bounds=PROPORTION,
        label="Condition recognised (Top-1)",
        what="share of conditions recognised",
        ceiling=_OTHERS,
        floor=_SHUFFLED,
        rule=Rule(
            "no lower than its ceiling, where the interval can tell",
            share_of_ceiling(1.0, noisy=True),
            "two conditions",
        ),
        use=GROUP_MAPS,
    ),
    Metric(
        "slope",
        section="maps",
        label="Effect size (slope)",
        what="slope of synthetic on real group maps",
        ceiling=_OTHERS,
        floor=_SHUFFLED,
        rule=Rule(
            "0.8 to 1.2 of its ceiling, the slope of other real participants; more only if the "
            "same participants scanned again have more, and then at most 1.1 of theirs",
            as_large_as_real_effects(0.2, 0.1),
            "a condition that varies over the brain",
        ),
        use=GROUP_MAPS,
        parts="Effect size by {kind}",
    ),
)
"""What this family computes."""

_BOUNDS = {metric.name: metric.bounds for metric in METRICS}

_Values = dict[str, float]


def measure_maps(synthetic: np.ndarray, real: np.ndarray, names: Sequence[str]) -> _Values:
    """Measure how one set of group maps agrees with another.

    Parameters
    ----------
    synthetic, real : ndarray of shape (C, N)
        Group maps; NaN rows are missing.
    names : sequence of str
        Names of the C conditions.

    Returns
    -------
    dict
        ``corr``, ``corr[<condition>]`` …, ``rsa`` (Spearman), ``rsa_pearson``,
        ``rsa_pairs``, ``top1``, ``slope`` and ``slope[<condition>]`` ….
    """
    correlations = map_correlation(synthetic, real)
    slopes = effect_slope(synthetic, real)
    structure = rsa(synthetic, real)
    values = {"corr": finite_mean(correlations)}
    values |= {f"corr[{name}]": float(r) for name, r in zip(names, correlations, strict=True)}
    values |= {"rsa": structure.spearman, "rsa_pearson": structure.pearson}
    values["rsa_pairs"] = float(structure.n_pairs)
    values["top1"] = top1(identification_matrix(synthetic, real))
    values["slope"] = finite_mean(slopes)
    values |= {f"slope[{name}]": float(b) for name, b in zip(names, slopes, strict=True)}
    return values


def compare(comparison: Comparison) -> Estimates:
    """Compare a generator's group maps with the real ones.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data, on one level of conditions.

    Returns
    -------
    dict
        Name as in `measure_maps` → Estimate.
    """
    names = comparison.level.names
    synthetic, real = comparison.maps()
    group_synthetic, group_real = group_mean(synthetic), group_mean(real)
    values = measure_maps(group_synthetic, group_real, names)
    samples = [
        measure_maps(group_mean(synthetic, own), group_mean(real, others), names)
        for own, others in zip(*comparison.draws("bootstrap"), strict=True)
    ]
    ceiling = comparison.once("ceiling", lambda: _ceiling(comparison))
    rng = comparison.random("floor")
    floor = average_of(
        [
            measure_maps(group_synthetic[_shuffle(len(names), rng)], group_real, names)
            for _ in range(N_SHUFFLES if len(names) > 1 else 0)
        ]
    )
    return _estimates(comparison, values, samples, ceiling, floor)


def compare_real(comparison: Comparison) -> Estimates:
    """Compare one half of the real data with the other, as if it were a generator.

    Halves are halves of each participant's runs where most have two of each
    condition, else halves of the participants. The ceiling is matched: half as
    much training data against half as much held-out data.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves, on one level of conditions.

    Returns
    -------
    dict
        As `compare`; empty when there is nothing to split.
    """
    level, names = comparison.level, comparison.level.names
    real, training = comparison.cohort.tables[REAL], comparison.cohort.training
    if not real.has_halves and len(real.participants) < 2:
        return {}
    draws, ceilings, floors, samples = [], [], [], []
    rng = comparison.random("halves")
    for _ in range(N_DRAWS):
        first, second = _draw_halves(real, level, rng)
        draws.append(measure_maps(group_mean(first), group_mean(second), names))
        if len(names) > 1:
            mixed = group_mean(first)[_shuffle(len(names), rng)]
            floors.append(measure_maps(mixed, group_mean(second), names))
        if training is None:
            continue
        if real.has_halves:
            trained = training.half(rng.integers(0, 2, len(training.participants)), level.of)
        else:
            trained = training.whole(level.of)
        for rows, training_rows in matched_draws(len(second), len(trained), rng, 1):
            ceilings.append(
                measure_maps(group_mean(trained[training_rows]), group_mean(second[rows]), names)
            )
    if real.has_halves:
        rng = comparison.random("bootstrap")
        for counts in bootstrap_counts(len(real.participants), rng):
            first, second = _draw_halves(real, level, rng)
            samples.append(
                measure_maps(group_mean(first, counts), group_mean(second, counts), names)
            )
    return _estimates(
        comparison, average_of(draws), samples, average_of(ceilings), average_of(floors)
    )


def _ceiling(comparison: Comparison) -> _Values:
    """Measure maps of as many training participants as if they were synthetic."""
    real, training = comparison.reference_maps()
    rng = comparison.shared_random("ceiling")
    return average_of(
        [
            measure_maps(
                group_mean(training[training_rows]), group_mean(real[rows]), comparison.level.names
            )
            for rows, training_rows in matched_draws(len(real), len(training), rng)
        ]
    )


def _draw_halves(
    real: MapTable, level: Level, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw halves of each participant's runs, else of the participants: (P, C, N) each."""
    n = len(real.participants)
    if real.has_halves:
        first = rng.integers(0, 2, n)
        return real.half(first, level.of), real.half(1 - first, level.of)
    order = rng.permutation(n)
    maps = real.whole(level.of)
    return maps[order[: n // 2]], maps[order[n // 2 : 2 * (n // 2)]]


def _estimates(
    comparison: Comparison,
    values: _Values,
    samples: Sequence[_Values],
    ceiling: _Values,
    floor: _Values,
) -> Estimates:
    estimates = {}
    for name, value in values.items():
        if name == "rsa_pairs":
            # Of few contrasts there is no structure to compare.
            if comparison.level.suffix != "_contrast" or value >= 3:
                estimates[name] = Estimate(value)
            continue
        drawn = np.array([sample[name] for sample in samples])
        bounds = _BOUNDS[name.partition("[")[0]]
        limits = interval(value, drawn, comparison.n_participants, bounds)
        estimates[name] = Estimate(value, *limits, ceiling.get(name, NAN), floor.get(name, NAN))
    return estimates


def _shuffle(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a permutation that is not the identity."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).any():
            return order


FAMILY = Family(
    "activation",
    "Does a condition evoke responses where real ones are, and as large?",
    METRICS,
    compare,
    compare_real,
    by_level=True,
)
