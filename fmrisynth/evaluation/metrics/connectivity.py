"""Figures of networks: agreement of connectivity, its spread, and whose it is.

Array legend: ``P`` participants, ``R`` runs, ``E`` pairs of parcels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fmrisynth.evaluation.measures.correlation import cross_correlation
from fmrisynth.evaluation.measures.networks import Networks
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    Figure,
    bootstrap_counts,
    finite_mean,
    interval,
    matched_draws,
)

__all__ = ["compare_networks", "fingerprint", "real_networks"]

_N_BOOTSTRAP = 200
_N_SHUFFLES = 20


def fingerprint(edges: np.ndarray, people: Sequence[str]) -> tuple[float, float]:
    """Similarity of connectivity between runs of one participant and of different ones.

    Parameters
    ----------
    edges : ndarray, shape (R, E)
        Connectivity of each run.
    people : sequence of str
        Participant of each run.

    Returns
    -------
    same, different : float
        Mean correlation of the runs' deviations from the mean over runs.
    """
    return _same_and_different(_deviations(edges), np.array(people), np.ones(len(people)))


def compare_networks(
    made: Networks, real: Networks, training: Networks | None, rng: np.random.Generator
) -> dict[str, Figure]:
    """Figures of networks of a generator beside those of real people.

    Parameters
    ----------
    made, real : Networks
        Generator and real held-out participants.
    training : Networks or None
        Real training participants, for the ceilings.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        ``fc_correlation`` (floor: parcels shuffled), ``fc_sd`` and
        ``fc_sd_ratio`` (within-run spread; floor: parcels shifted in time
        against each other), ``fc_same``, ``fc_different`` and their difference
        ``fc_fingerprint`` (floor: participants shuffled), ``pca_dimension_ratio``.
    """
    ours, theirs = _by_person(made), _by_person(real)
    shared = [name for name in theirs if name in ours]
    if not shared:
        return {}
    figures = {
        "fc_correlation": _agreement_figure(
            np.array([ours[name].mean(axis=0) for name in shared]),
            np.array([theirs[name].mean(axis=0) for name in shared]),
            training,
            rng,
        )
    }
    figures |= _spread_figures(made, real, training, rng)
    figures |= _fingerprint_figures(made, real, rng)
    return figures | _dimension_figure(made, real, training, rng)


def real_networks(
    halves: tuple[Networks, Networks] | None,
    real: Networks,
    training: Networks | None,
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Figures of networks of real data as its own generator.

    Parameters
    ----------
    halves : tuple of Networks or None
        Two halves of the runs of each held-out participant; None when there are none.
    real, training : Networks
        All runs of held-out and of training participants.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        As `compare_networks`: agreement and ratios between the halves; the
        fingerprint is that of all runs, with training people as ceiling.
    """
    figures = compare_networks(*halves, training, rng) if halves is not None else {}
    return figures | _fingerprint_figures(real, training, rng)


def _agreement_figure(
    synthetic: np.ndarray, truth: np.ndarray, training: Networks | None, rng: np.random.Generator
) -> Figure:
    """Compare the mean connectivity of participants (P, E)."""
    value = _agreement(synthetic.mean(axis=0), truth.mean(axis=0))
    counts = bootstrap_counts(len(truth), rng)
    samples = np.array([_agreement(c @ synthetic, c @ truth) for c in counts])
    others = np.zeros((0, truth.shape[1]))
    if training is not None:
        others = np.array([rows.mean(axis=0) for rows in _by_person(training).values()])
    ceilings = [
        _agreement(others[b].mean(axis=0), truth[a].mean(axis=0))
        for a, b in matched_draws(len(truth), len(others), rng)
    ]
    mean = synthetic.mean(axis=0)
    floors = [
        _agreement(_shuffled_parcels(mean, rng), truth.mean(axis=0)) for _ in range(_N_SHUFFLES)
    ]
    limits = interval(value, samples, (-1.0, 1.0))
    return Figure(value, *limits, finite_mean(ceilings), finite_mean(floors))


def _spread_figures(
    made: Networks, real: Networks, training: Networks | None, rng: np.random.Generator
) -> dict[str, Figure]:
    names, ours = _spreads(made)
    real_names, theirs = _spreads(real)
    value, unit = float(ours.mean()), float(theirs.mean())
    unit = unit if unit > 0 else NAN  # no spread with fewer than two edges
    floor = float(made.unrelated.mean())
    counts = bootstrap_counts(len(names), rng, _N_BOOTSTRAP)
    means = counts @ ours / len(names)
    below = counts @ theirs / len(names) if names == real_names else np.full(len(counts), unit)
    reference = float(_spreads(training)[1].mean()) if training is not None else NAN
    ratio = value / unit
    return {
        "fc_sd": Figure(value, *interval(value, means, (0.0, np.inf)), unit, floor),
        "fc_sd_ratio": Figure(
            ratio, *interval(ratio, means / below, (0.0, np.inf)), reference / unit, floor / unit
        ),
    }


def _fingerprint_figures(
    made: Networks, real: Networks | None, rng: np.random.Generator
) -> dict[str, Figure]:
    deviations, people = _deviations(made.edges), np.array(made.people)
    names, index = np.unique(people, return_inverse=True)
    everyone = np.ones(len(people))
    value = _same_and_different(deviations, people, everyone)
    samples = np.array(
        [
            _same_and_different(deviations, people, counts[index].astype(float))
            for counts in bootstrap_counts(len(names), rng, _N_BOOTSTRAP)
        ]
    ).reshape(-1, 2)
    floors = np.array(
        [
            _same_and_different(deviations, rng.permutation(people), everyone)
            for _ in range(_N_SHUFFLES)
        ]
    )
    best = fingerprint(real.edges, real.people) if real is not None else (NAN, NAN)
    columns = {
        "fc_same": lambda pair: pair[..., 0],
        "fc_different": lambda pair: pair[..., 1],
        "fc_fingerprint": lambda pair: pair[..., 0] - pair[..., 1],
    }
    figures = {}
    for name, of in columns.items():
        found = float(of(np.array(value)))
        limits = interval(found, of(samples), (-2.0, 2.0))
        figures[name] = Figure(found, *limits, float(of(np.array(best))), finite_mean(of(floors)))
    return figures


def _dimension_figure(
    made: Networks, real: Networks, training: Networks | None, rng: np.random.Generator
) -> dict[str, Figure]:
    """Compare the number of spatial components; too few and too many are both wrong."""
    ratio = made.dimension / real.dimension
    samples = []
    for counts in bootstrap_counts(len(made.products), rng, _N_BOOTSTRAP):
        same = len(made.products) == len(real.products)
        theirs = counts if same else np.ones(len(real.products))
        above = _drawn_dimension(made.products, counts)
        samples.append(above / _drawn_dimension(real.products, theirs))
    # The samples rest on some of the blocks: their spread counts, relative to their mean.
    found = np.array(samples) * (ratio / np.mean(samples)) if samples else np.zeros(0)
    ceiling = training.dimension / real.dimension if training is not None else NAN
    return {"pca_dimension_ratio": Figure(ratio, *interval(ratio, found, (0.0, np.inf)), ceiling)}


def _drawn_dimension(products: np.ndarray, weights: np.ndarray) -> float:
    """Participation ratio (tr C)² / tr C² of a weighted sum of covariances of trace 1."""
    return float(weights.sum() ** 2 / (weights @ products @ weights))


def _deviations(edges: np.ndarray) -> np.ndarray:
    centred = edges - edges.mean(axis=0)
    return cross_correlation(centred, centred)


def _same_and_different(
    deviations: np.ndarray, people: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Weighted means over pairs of runs of one participant and of different ones.

    A participant who is drawn c times weighs c in the pairs within it; pairs of
    its copies with each other are no pairs of different people.
    """
    first, second = np.triu_indices(len(people), 1)
    values = deviations[first, second]
    equal = people[first] == people[second]
    weight = np.where(equal, weights[first], weights[first] * weights[second])
    means = []
    for chosen in (equal, ~equal):
        usable = chosen & np.isfinite(values)
        total = weight[usable].sum()
        means.append(float(weight[usable] @ values[usable] / total) if total > 0 else NAN)
    return means[0], means[1]


def _shuffled_parcels(edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give every parcel the name of another: (E,)."""
    n = round((1 + np.sqrt(1 + 8 * len(edges))) / 2)
    upper = np.triu_indices(n, 1)
    square = np.zeros((n, n))
    square[upper] = edges
    square += square.T
    order = rng.permutation(n)
    return square[np.ix_(order, order)][upper]


def _by_person(networks: Networks) -> Mapping[str, np.ndarray]:
    names = np.array(networks.people)
    return {str(name): networks.edges[names == name] for name in np.unique(names)}


def _spreads(networks: Networks) -> tuple[list[str], np.ndarray]:
    """Mean over each participant's runs of the standard deviation over pairs of parcels."""
    people = _by_person(networks)
    return list(people), np.array(
        [float(np.tanh(rows).std(axis=1).mean()) for rows in people.values()]
    )


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    return float(cross_correlation(first[None], second[None])[0, 0])
