"""Tell two sets of runs apart by a small network that looks at windows of some seconds.

Legend: R runs, N parcels, T volumes, K components, W windows, F features.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fmrisynth.evaluation.measures.classifier import Told, areas, pair_runs
from fmrisynth.evaluation.measures.stored_arrays import StoredArrays

__all__ = ["WINDOWS", "WindowTable", "tell_windows_apart"]

WINDOWS = "windows"
"""Name of this kind of classifier beside the kinds of features."""

_WINDOW = 30.0  # s
_LEAST_VOLUMES = 8
_MOST_WINDOWS = 8
_N_COMPONENTS = 12
_MOST_FOLDS = 6
_TINY = 1e-6
_PENALTY = 0.25
"""Penalty of squared weights beside the mean loss of a window. Chosen on simulated noise of four
participants: bursts of level are told by an AUC of .51 with a tenth of it, .76 with it and .81 with
twice as much (six cohorts, spread .03 to .07); with three times as much areas vary and fall."""

_MOST_TRAINED = 2000
"""Windows that a network is trained on: more would add only time."""


@dataclass(frozen=True)
class WindowTable:
    """Series of the runs of one source.

    Attributes
    ----------
    series : mapping
        Number of a run → ndarray of shape (N, T): mean series of the parcels, less their mean.
    sizes : tuple of int
        Volumes of a window in each run.
    participants : ndarray of str of shape (R,)
        Participant of each run.
    """

    series: Mapping[int, np.ndarray]
    sizes: tuple[int, ...]
    participants: np.ndarray

    @classmethod
    def of(
        cls, series: Sequence[np.ndarray], t_r: Sequence[float], participants: Sequence[str]
    ) -> WindowTable:
        """Collect the series (N, T) of runs with their repetition times (s)."""
        sizes = [max(_LEAST_VOLUMES, round(_WINDOW / seconds)) for seconds in t_r]
        centred = [values - values.mean(axis=1, keepdims=True) for values in series]
        return cls(
            {run: values.astype(np.float32) for run, values in enumerate(centred)},
            tuple(min(size, part.shape[1]) for size, part in zip(sizes, centred, strict=True)),
            np.array(participants, dtype=str),
        )

    def stored(self, path: Path) -> WindowTable:
        """Keep the series in a file."""
        return WindowTable(StoredArrays(path, self.series), self.sizes, self.participants)


def tell_windows_apart(
    first: WindowTable,
    second: WindowTable,
    pairs: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    n_permutations: int = 40,
    *,
    whole: bool = False,
) -> Told | None:
    """Train small networks on windows of the participants that are not left out.

    A window of 30 s is described by the covariances of 12 principal components of the parcels'
    series, as log SD and correlations at lags 0 and 1; a network with one hidden layer tells the
    source, and the score of a run is the mean over its windows. Components, scales and network
    are learned without the participants that are left out. Unlike
    `fmrisynth.evaluation.measures.classifier.tell_apart`, it sees windows instead of whole runs,
    and combinations of features.

    Parameters
    ----------
    first, second : WindowTable
        The two sources.
    pairs : sequence of (str, str)
        Participants of the first and of the second source that are left out together. More than
        six pairs are left out in six groups.
    rng : numpy.random.Generator
        Draws the permutations, the groups and the networks' first weights.
    n_permutations : int
        Number of permutations of the labels within pairs. One network learns all of them, with
        an output for each.
    whole : bool
        Permute whole participants of a pair, not single runs.

    Returns
    -------
    Told or None
        None with fewer than two pairs.
    """
    if len(pairs) < 2:
        return None
    paired = pair_runs(
        (first.participants, second.participants), pairs, rng, n_permutations, whole=whole
    )
    chosen = [
        (table.series[int(r)], table.sizes[r])
        for table, rows in zip((first, second), paired.rows, strict=True)
        for r in np.flatnonzero(rows)
    ]
    found = np.zeros((len(pairs), len(paired.labels)))
    groups = np.array_split(rng.permutation(len(pairs)), min(len(pairs), _MOST_FOLDS))
    with threadpool_limits(1):  # matrices this small are slower with several
        for group in groups:
            out = np.isin(paired.pair, group)
            scores = _scores(chosen, paired.labels, out, int(rng.integers(2**31)))
            for k in group:
                own = paired.pair == k
                found[k] = areas(scores[own[out]], paired.labels[:, own])
    return Told.of(found)


def _scores(
    chosen: Sequence[tuple[np.ndarray, int]], labels: np.ndarray, out: np.ndarray, seed: int
) -> np.ndarray:
    """Train on the runs that are not left out, and score the others: (R, L)."""
    training = [run for run, left in zip(chosen, out, strict=True) if not left]
    axes = _principal_axes([series for series, _ in training])
    described = [_describe(axes @ series, size) for series, size in chosen]
    run_of = np.repeat(np.arange(len(described)), [len(part) for part in described])
    features = np.concatenate(described)
    train = np.flatnonzero(~out[run_of])
    if len(train) > _MOST_TRAINED:
        train = np.random.default_rng(seed).permutation(train)[:_MOST_TRAINED]
    scaled = StandardScaler().fit(features[train]).transform(features)
    of_windows = labels[:, run_of].T.astype(int)
    predicted = np.concatenate(
        [
            _predict(scaled, of_windows[:, columns], train, seed)
            for columns in (slice(0, 1), slice(1, None))
        ],
        axis=1,
    )
    return np.stack([predicted[run_of == r].mean(axis=0) for r in np.flatnonzero(out)])


def _principal_axes(series: Sequence[np.ndarray]) -> np.ndarray:
    """Find the axes (K, N) on which training series vary most, scaled to a variance of 1."""
    covariance = np.mean([part @ part.T / part.shape[1] for part in series], axis=0)
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    largest = np.argsort(values)[::-1][:_N_COMPONENTS]
    usable = largest[values[largest] > 1e-9 * max(values.max(), 1e-9)]
    return (vectors[:, usable] / np.sqrt(values[usable])).T


def _describe(components: np.ndarray, size: int) -> np.ndarray:
    """Compute log SD and correlations at lags 0 and 1 of components (K, T) in windows: (W, F)."""
    last = components.shape[1] - size
    number = min(max(1, round(2 * last / size) + 1), _MOST_WINDOWS)  # neighbours overlap by half
    pairs, all_pairs = (np.triu_indices(len(components), k) for k in (1, 0))
    rows = []
    for start in np.linspace(0, last, number).round().astype(int):
        window = components[:, start : start + size]
        window = window - window.mean(axis=1, keepdims=True)
        sd = np.maximum(window.std(axis=1), _TINY)
        scaled = window / sd[:, None]
        lagged = scaled[:, 1:] @ scaled[:, :-1].T / size
        rows.append(
            np.concatenate(
                [
                    np.log(sd),
                    (scaled @ scaled.T / size)[pairs],
                    ((lagged + lagged.T) / 2)[all_pairs],
                ]
            )
        )
    return np.array(rows)


def _predict(features: np.ndarray, labels: np.ndarray, train: np.ndarray, seed: int) -> np.ndarray:
    """Train one network for several labels (n, L) of windows, and predict them for all."""
    if not labels.shape[1]:
        return np.zeros(labels.shape)
    network = MLPClassifier(
        (32,),
        solver="lbfgs",
        alpha=_PENALTY * len(train),  # scikit-learn divides it by the number of samples
        max_iter=20,
        random_state=seed,
    )
    targets = labels[train] if labels.shape[1] > 1 else labels[train, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped early on purpose
        network.fit(features[train], targets)
    predicted = network.predict_proba(features)
    return predicted if labels.shape[1] > 1 else predicted[:, 1:]
