"""Tell two sets of runs apart by classifiers that have not seen the participant.

Legend: R runs, F features, P participants.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.kernel_ridge import KernelRidge

from fmrisynth.bids.pieces import slices
from fmrisynth.evaluation.measures.stored_arrays import StoredArrays

__all__ = ["ALL", "FeatureTable", "PairedRuns", "Told", "areas", "pair_runs", "tell_apart"]

ALL = "all"
"""Name of all kinds of features together, each weighing the same."""

_PENALTY = 0.1
"""Penalty of the ridge, where the features of a run have a mean squared norm of 1."""

_AT_ONCE = 512  # features, which are standardised together
_MOST_FOLDS = 16
_MOST_RUNS = 1024
"""Runs that a classifier sees: it takes time with their square, and more would tell little more."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of the runs of one source.

    Attributes
    ----------
    features : mapping
        Kind of features → ndarray of shape (R, F).
    participants : ndarray of str of shape (R,)
        Participant of each run.
    """

    features: Mapping[str, np.ndarray]
    participants: np.ndarray

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, np.ndarray]], participants: Sequence[str]
    ) -> FeatureTable:
        """Stack the features of single runs."""
        kinds = rows[0] if rows else {}
        return cls(
            {kind: np.stack([row[kind] for row in rows], dtype=np.float32) for kind in kinds},
            np.array(participants, dtype=str),
        )

    def stored(self, path: Path) -> FeatureTable:
        """Keep the features in a file."""
        return FeatureTable(StoredArrays(path, self.features), self.participants)

    def keep(self, participants: Collection[str]) -> FeatureTable:
        """Keep the runs of some participants."""
        rows = np.isin(self.participants, list(participants))
        kept = {kind: values[rows] for kind, values in self.features.items()}
        return FeatureTable(kept, self.participants[rows])


@dataclass(frozen=True)
class Told:
    """How well two sources were told apart.

    Attributes
    ----------
    auc : ndarray of shape (n_pairs,)
        Area under the curve within each pair of participants that was left out; .5 is chance.
    chance : ndarray of shape (n_permutations,)
        Mean of it over pairs with the labels of runs permuted within each pair.
    """

    auc: np.ndarray
    chance: np.ndarray

    @classmethod
    def of(cls, found: np.ndarray) -> Told:
        """Split areas (n_pairs, 1 + n_permutations) into those of labels and of permuted ones."""
        return cls(found[:, 0], found[:, 1:].mean(axis=0))


def tell_apart(
    first: FeatureTable,
    second: FeatureTable,
    pairs: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    n_permutations: int = 100,
    *,
    whole: bool = False,
) -> dict[str, Told]:
    """Train classifiers on all pairs of participants but one, and test them on that one.

    A ridge classifier on standardised features. Its AUC is computed within each pair that was
    left out, so that differences between participants count neither way. More than 16 pairs are
    left out in 16 groups; of pairs with more than 1,024 runs together, some are drawn.

    Parameters
    ----------
    first, second : FeatureTable
        The two sources.
    pairs : sequence of (str, str)
        Participants of the first and of the second source that are left out together: a
        participant with itself for a synthetic source, two of them for two real ones.
    rng : numpy.random.Generator
        Draws the permutations.
    n_permutations : int
        Number of permutations of the labels within pairs.
    whole : bool
        Permute whole participants of a pair, not single runs: for pairs of two participants, whose
        runs cannot be exchanged.

    Returns
    -------
    dict
        Kind of features, and `ALL` → Told. Empty with fewer than two pairs.
    """
    if len(pairs) < 2:
        return {}
    sides = first.participants, second.participants
    pairs = _some_pairs(pairs, sides, rng)
    paired = pair_runs(sides, pairs, rng, n_permutations, whole=whole)
    blocks = {
        kind: np.concatenate([values[paired.rows[0]], second.features[kind][paired.rows[1]]])
        for kind, values in first.features.items()
    }
    found = {kind: np.zeros((len(pairs), len(paired.labels))) for kind in (ALL, *blocks)}
    for group in np.array_split(np.arange(len(pairs)), min(len(pairs), _MOST_FOLDS)):
        out = np.isin(paired.pair, group)
        kernels = {kind: _kernel(values, ~out) for kind, values in blocks.items()}
        kernels[ALL] = sum(kernels.values(), np.zeros(())) / len(kernels)
        for kind, kernel in kernels.items():
            scores = _scores(kernel, paired.labels, out)
            for k in group:
                own = paired.pair == k
                found[kind][k] = areas(scores[own[out]], paired.labels[:, own])
    return {kind: Told.of(values) for kind, values in found.items()}


def _some_pairs(
    pairs: Sequence[tuple[str, str]],
    participants: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> Sequence[tuple[str, str]]:
    """Draw some of many pairs."""
    n_runs = sum(
        int(np.isin(names, [pair[side] for pair in pairs]).sum())
        for side, names in enumerate(participants)
    )
    if n_runs <= _MOST_RUNS:
        return pairs
    number = max(2, len(pairs) * _MOST_RUNS // n_runs)
    return [pairs[i] for i in np.sort(rng.choice(len(pairs), number, replace=False))]


@dataclass(frozen=True)
class PairedRuns:
    """Runs of two sources, with the pair of participants that each belongs to.

    Attributes
    ----------
    rows : tuple of two ndarray of bool
        Runs of the first and of the second source that belong to a pair; the
        runs below are these, one source after the other.
    pair : ndarray of int of shape (R,)
        Pair of each run.
    labels : ndarray of shape (1 + n_permutations, R)
        1 for runs of the second source, and the same permuted within pairs.
    """

    rows: tuple[np.ndarray, np.ndarray]
    pair: np.ndarray
    labels: np.ndarray


def pair_runs(
    participants: tuple[np.ndarray, np.ndarray],
    pairs: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    n_permutations: int,
    *,
    whole: bool,
) -> PairedRuns:
    """Sort the runs of two sources into pairs, and permute their labels.

    Parameters
    ----------
    participants : tuple of two ndarray of str
        Participant of each run of the two sources.
    pairs, rng, n_permutations, whole
        As for `tell_apart`.

    Returns
    -------
    PairedRuns
    """
    places, rows = [], []
    for side, names in enumerate(participants):
        place = {pair[side]: k for k, pair in enumerate(pairs)}
        keep = np.isin(names, list(place))
        rows.append(keep)
        places.append(np.array([place[str(name)] for name in names[keep]]))
    pair = np.concatenate(places)
    labels = np.repeat([0.0, 1.0], [len(part) for part in places])
    permuted = [_permuted(labels, pair, rng, whole) for _ in range(n_permutations)]
    return PairedRuns((rows[0], rows[1]), pair, np.stack([labels, *permuted]))


def _permuted(
    labels: np.ndarray, pair: np.ndarray, rng: np.random.Generator, whole: bool
) -> np.ndarray:
    """Permute labels within each pair."""
    permuted = labels.copy()
    for k in np.unique(pair):
        own = labels[pair == k]
        if whole:
            permuted[pair == k] = 1.0 - own if rng.random() < 0.5 else own
        else:
            permuted[pair == k] = rng.permutation(own)
    return permuted


def areas(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the area under the curve of several scores.

    Parameters
    ----------
    scores : ndarray of shape (R, L)
        Larger for runs that are taken for those of the second source.
    labels : ndarray of shape (L, R)
        1 for runs of the second source.

    Returns
    -------
    ndarray of shape (L,)
        Share of the pairs of a first and a second run in which the second has the larger score.
    """
    larger = scores[:, None] - scores[None]
    wins = (larger > 0) + 0.5 * (larger == 0)
    second = labels.T
    number = second.sum(axis=0) * (1 - second).sum(axis=0)
    return np.einsum("il,jl,ijl->l", second, 1 - second, wins) / number


def _scores(kernel: np.ndarray, labels: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Train on all runs but those left out, and score these: (R, L) for labels (L, R)."""
    model = KernelRidge(alpha=_PENALTY, kernel="precomputed")
    # features have a mean of 0 over the training runs, so that labels need no intercept
    model.fit(kernel[np.ix_(~out, ~out)], labels[:, ~out].T)
    return model.predict(kernel[np.ix_(out, ~out)]).reshape(-1, len(labels))


def _kernel(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Compute inner products (R, R) of features that are standardised on the training runs.

    All features of a run together have a mean square of 1.
    """
    kernel, number = np.zeros((len(values), len(values))), 0
    for part in slices(values.shape[1], _AT_ONCE):
        own = values[:, part].astype(np.float64)
        mean, sd = own[train].mean(axis=0), own[train].std(axis=0)
        usable = sd > 1e-9
        scaled = (own[:, usable] - mean[usable]) / sd[usable]
        kernel += scaled @ scaled.T
        number += int(usable.sum())
    return kernel / max(number, 1)
