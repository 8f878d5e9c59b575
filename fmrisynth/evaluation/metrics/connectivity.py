"""Compare connectivity: its agreement, its spread, and how far it is a participant's own.

Legend: P participants, R runs, E pairs of parcels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.correlation import cross_correlation
from fmrisynth.evaluation.measures.networks import Networks
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    bootstrap_counts,
    finite_mean,
    interval,
    matched_draws,
)
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import CORRELATION, POSITIVE, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import share_of_ceiling, share_of_retest
from fmrisynth.evaluation.metrics.uses import CONNECTIVITY, INDIVIDUALS

__all__ = ["FAMILY", "METRICS", "compare", "compare_real", "fingerprint"]

_N_BOOTSTRAP = 200
_N_SHUFFLES = 20

_REAL = "the same of the real held-out runs"
_OVER_HELD_OUT = "the same of real training runs, over held-out"
_SHIFTED = "parcels shifted in time against each other"
_RELABELLED = "participants shuffled"

METRICS = (
    Metric(
        "fc_correlation",
        section="networks",
        bounds=CORRELATION,
        label="Connectivity",
        what="correlation of the mean connectivity with the real one",
        ceiling="the same between as many real training and real held-out participants",
        floor="parcels shuffled",
        rule=Rule(
            "at least 0.8 of its ceiling, and no more than the same participants scanned again "
            "would have",
            share_of_ceiling(0.8, at_most_retest=True),
            "a brain of at least 8 supervoxels of 12 mm",
        ),
        use=CONNECTIVITY,
    ),
    Metric(
        "fc_sd",
        section="networks",
        bounds=POSITIVE,
        label="Spread of connectivity within a run",
        what="standard deviation of the connectivity over pairs of parcels, within a run",
        ceiling=_REAL,
        floor=_SHIFTED,
        absolute=True,
    ),
    Metric(
        "fc_sd_ratio",
        section="networks",
        bounds=POSITIVE,
        label="Spread of connectivity within a run, synthetic / real",
        what="fc_sd, synthetic / real",
        ceiling=_OVER_HELD_OUT,
        floor=_SHIFTED,
    ),
    Metric(
        "fc_same",
        section="networks",
        bounds=CORRELATION,
        label="Likeness of connectivity within a participant",
        what="similarity of connectivity between runs of one participant",
        ceiling=_REAL,
        floor=_RELABELLED,
    ),
    Metric(
        "fc_different",
        section="networks",
        bounds=CORRELATION,
        label="Likeness of connectivity between participants",
        what="similarity of connectivity between different participants",
        ceiling=_REAL,
        floor=_RELABELLED,
    ),
    Metric(
        "fc_fingerprint",
        section="networks",
        bounds=(-2.0, 2.0),
        label="A participant's runs alike in connectivity",
        what="fc_same − fc_different",
        ceiling=_REAL,
        floor=_RELABELLED,
        rule=Rule(
            "0.5 to 2 times the real one",
            share_of_retest(0.5, most=2.0),
            "two runs of two participants",
        ),
        use=INDIVIDUALS,
    ),
    Metric(
        "pca_dimension_ratio",
        section="networks",
        bounds=POSITIVE,
        label="Number of spatial components, synthetic / real",
        what="number of spatial components (participation ratio), synthetic / real",
        ceiling=_OVER_HELD_OUT,
        floor="none: too much and too little are both wrong, and neither has an end",
    ),
)
"""What this family computes."""


def fingerprint(edges: np.ndarray, participants: Sequence[str]) -> tuple[float, float]:
    """Similarity of connectivity between runs of one participant and of different ones.

    Parameters
    ----------
    edges : ndarray of shape (R, E)
        Connectivity of each run.
    participants : sequence of str
        Participant of each run.

    Returns
    -------
    same, different : float
        Mean correlation of the runs' deviations from the mean over runs.
    """
    same, different = _Deviations.of(edges, participants).same_and_different()[0]
    return float(same), float(different)


def compare(comparison: Comparison) -> Estimates:
    """Compare a generator's networks with those of real participants.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data.

    Returns
    -------
    dict
        ``fc_correlation`` (floor: parcels shuffled), ``fc_sd`` and
        ``fc_sd_ratio`` (within-run spread; floor: parcels shifted in time
        against each other), ``fc_same``, ``fc_different`` and their difference
        ``fc_fingerprint`` (floor: participants shuffled), ``pca_dimension_ratio``.
        Empty where there are too few supervoxels for networks.
    """
    networks = comparison.measurements.networks
    if not networks:
        return {}
    return _compare(comparison, networks[comparison.source], networks[REAL])


def compare_real(comparison: Comparison) -> Estimates:
    """Compare the networks of real data with themselves.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`: agreement and ratios between two halves of the runs of
        each participant; the fingerprint is that of all runs, with training
        participants as ceiling.
    """
    networks, halves = comparison.measurements.networks, comparison.measurements.half_networks
    if not networks:
        return {}
    estimates = _compare(comparison, *halves) if halves is not None else {}
    rng = comparison.random("fingerprint of all runs")
    return estimates | _fingerprint(networks[REAL], networks.get(TRAINING), rng)


def _compare(comparison: Comparison, synthetic: Networks, real: Networks) -> Estimates:
    training = comparison.measurements.networks.get(TRAINING)
    rows = comparison.shared_rows(_by_participant(synthetic), _by_participant(real))
    if rows is None:
        return {}
    own, others = (_means(side) for side in rows)
    estimates = {"fc_correlation": _agreement_estimate(comparison, own, others)}
    estimates |= _spread(synthetic, real, training, comparison.random("spread"))
    estimates |= _fingerprint(synthetic, real, comparison.random("fingerprint"))
    return estimates | _dimension(synthetic, real, training, comparison.random("dimension"))


def _agreement_estimate(
    comparison: Comparison, synthetic: np.ndarray, real: np.ndarray
) -> Estimate:
    """Compare the mean connectivity of participants (P, E)."""
    value = _agreement(synthetic.mean(axis=0), real.mean(axis=0))
    counts = comparison.draws_of(len(synthetic), len(real), "bootstrap")
    samples = np.array([_agreement(a @ synthetic, b @ real) for a, b in zip(*counts, strict=True)])
    ceiling = comparison.once("ceiling", lambda: _ceiling(comparison, real))
    mean, rng = synthetic.mean(axis=0), comparison.random("floor")
    floors = [
        _agreement(_shuffled_parcels(mean, rng), real.mean(axis=0)) for _ in range(_N_SHUFFLES)
    ]
    n_participants = min(len(synthetic), len(real))
    limits = interval(value, samples, n_participants, (-1.0, 1.0))
    return Estimate(value, *limits, ceiling, finite_mean(floors))


def _ceiling(comparison: Comparison, real: np.ndarray) -> float:
    """Measure the agreement of as many training participants, as if they were synthetic."""
    training = comparison.measurements.networks.get(TRAINING)
    if training is None:
        return NAN
    others = _means(_by_participant(training).values())
    draws = matched_draws(len(real), len(others), comparison.shared_random("ceiling"))
    return finite_mean(
        [
            _agreement(others[training_rows].mean(axis=0), real[rows].mean(axis=0))
            for rows, training_rows in draws
        ]
    )


def _spread(
    synthetic: Networks, real: Networks, training: Networks | None, rng: np.random.Generator
) -> Estimates:
    names, spreads = _spreads(synthetic)
    real_names, real_spreads = _spreads(real)
    value, unit = float(spreads.mean()), float(real_spreads.mean())
    unit = unit if unit > 0 else NAN  # no spread with fewer than two edges
    floor = float(synthetic.unrelated.mean())
    counts = bootstrap_counts(len(names), rng, _N_BOOTSTRAP)
    means = counts @ spreads / len(names)
    paired = names == real_names
    below = counts @ real_spreads / len(names) if paired else np.full(len(counts), unit)
    reference = float(_spreads(training)[1].mean()) if training is not None else NAN
    ratio = value / unit
    return {
        "fc_sd": Estimate(value, *interval(value, means, len(names), (0.0, np.inf)), unit, floor),
        "fc_sd_ratio": Estimate(
            ratio,
            *interval(ratio, means / np.where(below > 0, below, NAN), len(names), (0.0, np.inf)),
            reference / unit,
            floor / unit,
        ),
    }


def _fingerprint(
    networks: Networks, reference: Networks | None, rng: np.random.Generator
) -> Estimates:
    deviations = _Deviations.of(networks.edges, networks.participants)
    names = np.unique(networks.participants)
    value = deviations.same_and_different()[0]
    samples = deviations.same_and_different(bootstrap_counts(len(names), rng, _N_BOOTSTRAP))
    floors = np.array(
        [
            _Deviations.of(
                networks.edges, rng.permutation(networks.participants)
            ).same_and_different()[0]
            for _ in range(_N_SHUFFLES)
        ]
    )
    ceiling = (
        fingerprint(reference.edges, reference.participants)
        if reference is not None
        else (NAN, NAN)
    )
    columns = {
        "fc_same": lambda pair: pair[..., 0],
        "fc_different": lambda pair: pair[..., 1],
        "fc_fingerprint": lambda pair: pair[..., 0] - pair[..., 1],
    }
    estimates = {}
    for name, of in columns.items():
        part = float(of(value))
        limits = interval(part, of(samples), len(names), (-2.0, 2.0))
        estimates[name] = Estimate(
            part, *limits, float(of(np.array(ceiling))), finite_mean(of(floors))
        )
    return estimates


def _dimension(
    synthetic: Networks, real: Networks, training: Networks | None, rng: np.random.Generator
) -> Estimates:
    """Compare the number of spatial components; too few and too many are both wrong."""
    ratio = synthetic.dimension / real.dimension
    samples = []
    for counts in bootstrap_counts(len(synthetic.products), rng, _N_BOOTSTRAP):
        paired = len(synthetic.products) == len(real.products)
        real_counts = counts if paired else np.ones(len(real.products))
        above = _drawn_dimension(synthetic.products, counts)
        samples.append(above / _drawn_dimension(real.products, real_counts))
    # The samples rest on some of the supervoxels: their spread counts, relative to their mean.
    scaled = np.array(samples) * (ratio / np.mean(samples)) if samples else np.zeros(0)
    ceiling = training.dimension / real.dimension if training is not None else NAN
    limits = interval(ratio, scaled, len(synthetic.products), (0.0, np.inf))
    return {"pca_dimension_ratio": Estimate(ratio, *limits, ceiling)}


def _drawn_dimension(products: np.ndarray, weights: np.ndarray) -> float:
    """Participation ratio (tr C)² / tr C² of a weighted sum of covariances of trace 1."""
    return float(weights.sum() ** 2 / (weights @ products @ weights))


@dataclass(frozen=True)
class _Deviations:
    """Hold deviations of runs from their mean, of unit norm, from which sums of likenesses follow.

    Attributes
    ----------
    sums : ndarray of shape (P, E)
        Sum over the runs of each participant.
    numbers : ndarray of shape (P,)
        Number of these runs, but for those that do not differ from the mean.
    """

    sums: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(cls, edges: np.ndarray, participants: ArrayLike) -> _Deviations:
        """Add up the deviations of the connectivity of runs (R, E)."""
        units = edges - edges.mean(axis=0, dtype=np.float64)
        units -= units.mean(axis=1, keepdims=True)
        norms = np.sqrt(np.einsum("re,re->r", units, units))
        units /= np.where(norms > 0, norms, 1.0)[:, None]
        names, owner = np.unique(participants, return_inverse=True)
        sums = np.zeros((len(names), units.shape[1]))
        np.add.at(sums, owner, units)
        return cls(sums, np.bincount(owner, norms > 0, len(names)))

    def same_and_different(self, counts: np.ndarray | None = None) -> np.ndarray:
        """Average over pairs of runs of one participant and of different ones: (S, 2).

        Parameters
        ----------
        counts : ndarray of shape (S, P), optional
            How often each participant is drawn. Who is drawn c times weighs c in the pairs within
            it; pairs of its copies are no pairs of different participants.
        """
        drawn = np.ones((1, len(self.numbers))) if counts is None else counts.astype(float)
        squares, n = np.einsum("pe,pe->p", self.sums, self.sums), self.numbers
        whole = np.square(drawn @ self.sums).sum(axis=1)
        pairs = [
            (drawn @ (squares - n), drawn @ (n * (n - 1))),
            (whole - drawn**2 @ squares, np.square(drawn @ n) - drawn**2 @ n**2),
        ]
        return np.stack([total / np.where(of > 0, of, NAN) for total, of in pairs], axis=1)


def _shuffled_parcels(edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give every parcel the name of another: (E,)."""
    n = round((1 + np.sqrt(1 + 8 * len(edges))) / 2)
    upper = np.triu_indices(n, 1)
    square = np.zeros((n, n))
    square[upper] = edges
    square += square.T
    order = rng.permutation(n)
    return square[np.ix_(order, order)][upper]


def _by_participant(networks: Networks) -> Mapping[str, np.ndarray]:
    names = np.array(networks.participants)
    return {str(name): networks.edges[names == name] for name in np.unique(names)}


def _means(participants: Iterable[np.ndarray]) -> np.ndarray:
    """Average the connectivity of each participant's runs (R, E): (P, E)."""
    return np.array([edges.mean(axis=0, dtype=np.float64) for edges in participants])


def _spreads(networks: Networks) -> tuple[list[str], np.ndarray]:
    """Mean over each participant's runs of the standard deviation over pairs of parcels."""
    participants = _by_participant(networks)
    return list(participants), np.array(
        [float(np.tanh(rows.astype(float)).std(axis=1).mean()) for rows in participants.values()]
    )


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    return float(cross_correlation(first[None], second[None])[0, 0])


FAMILY = Family(
    "connectivity",
    "Are parcels connected as in real data, and is a participant's connectivity its own?",
    METRICS,
    compare,
    compare_real,
)
