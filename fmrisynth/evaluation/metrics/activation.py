"""Figures of activation: group maps of synthetic and real participants compared.

Array legend: ``P`` participants, ``C`` conditions, ``N`` coordinates or voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.maps import MapTable, group_mean
from fmrisynth.evaluation.measures.amplitude import effect_slope
from fmrisynth.evaluation.measures.correlation import map_correlation
from fmrisynth.evaluation.measures.identification import identification_matrix, top1
from fmrisynth.evaluation.measures.resampling import (
    N_DRAWS,
    N_SHUFFLES,
    NAN,
    Figure,
    average_of,
    bootstrap_counts,
    finite_mean,
    interval,
    matched_draws,
)
from fmrisynth.evaluation.measures.rsa import rsa

__all__ = ["activation_figures", "compare_maps", "compare_split_halves"]

_BOUNDS = {
    "corr": (-1.0, 1.0),
    "rsa": (-1.0, 1.0),
    "rsa_pearson": (-1.0, 1.0),
    "top1": (0.0, 1.0),
    "slope": (-np.inf, np.inf),
}


def activation_figures(
    synthetic: np.ndarray, real: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """All figures of one pair of group maps.

    Parameters
    ----------
    synthetic, real : ndarray, shape (C, N)
        Group maps; NaN rows are missing.
    names : sequence of str
        Names of the ``C`` conditions.

    Returns
    -------
    dict
        ``corr``, ``corr[<condition>]`` …, ``rsa`` (Spearman), ``rsa_pearson``,
        ``rsa_pairs``, ``top1``, ``slope`` and ``slope[<condition>]`` ….
    """
    correlations = map_correlation(synthetic, real)
    slopes = effect_slope(synthetic, real)
    structure = rsa(synthetic, real)
    figures = {"corr": finite_mean(correlations)}
    figures |= {f"corr[{name}]": float(r) for name, r in zip(names, correlations, strict=True)}
    figures |= {"rsa": structure.spearman, "rsa_pearson": structure.pearson}
    figures["rsa_pairs"] = float(structure.n_pairs)
    figures["top1"] = top1(identification_matrix(synthetic, real))
    figures["slope"] = finite_mean(slopes)
    figures |= {f"slope[{name}]": float(b) for name, b in zip(names, slopes, strict=True)}
    return figures


def compare_maps(
    synthetic: np.ndarray,
    real: np.ndarray,
    training: np.ndarray,
    names: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Figures of a generator with interval, ceiling and floor.

    Parameters
    ----------
    synthetic, real : ndarray, shape (P, C, N)
        Maps of the same participants in the same order.
    training : ndarray, shape (Q, C, N)
        Real training participants; may be empty.
    names : sequence of str
        Names of the ``C`` conditions.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        Name → Figure.
    """
    group_synthetic, group_real = group_mean(synthetic), group_mean(real)
    values = activation_figures(group_synthetic, group_real, names)
    samples = [
        activation_figures(group_mean(synthetic, counts), group_mean(real, counts), names)
        for counts in bootstrap_counts(len(real), rng)
    ]
    ceiling = average_of(
        [
            activation_figures(group_mean(training[theirs]), group_mean(real[ours]), names)
            for ours, theirs in matched_draws(len(real), len(training), rng)
        ]
    )
    floor = average_of(
        [
            activation_figures(group_synthetic[_shuffle(len(names), rng)], group_real, names)
            for _ in range(N_SHUFFLES if len(names) > 1 else 0)
        ]
    )
    return _figures(values, samples, ceiling, floor)


def compare_split_halves(
    real: MapTable,
    training: MapTable | None,
    level: Level,
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Real data as its own generator: one half against the other.

    Halves are halves of each participant's runs where everyone has two of
    each condition, else halves of the participants. The ceiling is matched:
    half as much training data against half as much held-out data.

    Parameters
    ----------
    real, training : MapTable
        Held-out and training participants; training may be missing.
    level : Level
        The conditions.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        Name → Figure; empty when there is nothing to split.
    """
    n_real, names = len(real.participants), level.names
    by_runs = real.has_halves
    if not by_runs and n_real < 2:
        return {}

    def halves() -> tuple[np.ndarray, np.ndarray]:
        if by_runs:
            first = rng.integers(0, 2, n_real)
            return level.of(real.half(first)), level.of(real.half(1 - first))
        order = rng.permutation(n_real)
        maps = level.of(real.whole())
        return maps[order[: n_real // 2]], maps[order[n_real // 2 : 2 * (n_real // 2)]]

    def training_half() -> np.ndarray:
        if training is None:
            return np.zeros((0, len(names), real.coordinates.shape[-1]))
        if not by_runs:
            return level.of(training.whole())
        first = rng.integers(0, 2, len(training.participants))
        return level.of(training.half(first))

    draws, ceilings, floors, samples = [], [], [], []
    for _ in range(N_DRAWS):
        first, second = halves()
        draws.append(activation_figures(group_mean(first), group_mean(second), names))
        if len(names) > 1:
            mixed = group_mean(first)[_shuffle(len(names), rng)]
            floors.append(activation_figures(mixed, group_mean(second), names))
        trained = training_half()
        for ours, theirs in matched_draws(len(second), len(trained), rng, 1):
            ceilings.append(
                activation_figures(group_mean(trained[theirs]), group_mean(second[ours]), names)
            )
    if by_runs:
        for counts in bootstrap_counts(n_real, rng):
            first, second = halves()
            samples.append(
                activation_figures(group_mean(first, counts), group_mean(second, counts), names)
            )
    return _figures(average_of(draws), samples, average_of(ceilings), average_of(floors))


def _figures(
    values: dict[str, float],
    samples: Sequence[dict[str, float]],
    ceiling: dict[str, float],
    floor: dict[str, float],
) -> dict[str, Figure]:
    figures = {}
    for name, value in values.items():
        if name == "rsa_pairs":
            figures[name] = Figure(value)
            continue
        low, high = interval(
            value,
            np.array([sample[name] for sample in samples]),
            _BOUNDS[name.partition("[")[0]],
        )
        figures[name] = Figure(value, low, high, ceiling.get(name, NAN), floor.get(name, NAN))
    return figures


def _shuffle(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a permutation that is not the identity."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).any():
            return order
