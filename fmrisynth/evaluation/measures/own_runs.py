"""Compare single runs of participants with each other, and say how alike they can be at most.

A generator that knows a participant's other runs must be compared with the run that it did not
know: the one that it imitates. What it can reach is bounded. Of the variance of a participant's
true deviation the other runs reveal a share ρ; a synthetic run whose deviation has the variance
of real ones then correlates with the left-out run by at most ρ · R, where R is the correlation of
two real runs. If a prediction from the other runs correlates with the left-out run by c, then
ρ ≥ c² / R, so that the bound is c², of the best prediction that is known.

Legend: P participants, C conditions, B supervoxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fmrisynth.evaluation.cohort.maps import ordered_runs
from fmrisynth.evaluation.cohort.supervoxels import supervoxel_effects
from fmrisynth.evaluation.measures.correlation import cross_correlation, map_correlation
from fmrisynth.evaluation.measures.individuals import without_group
from fmrisynth.evaluation.measures.resampling import NAN, finite_mean
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = [
    "RunMaps",
    "condition_maps",
    "deviations",
    "group_of",
    "likeness",
    "reachable",
    "some_of",
]

T = TypeVar("T")

RunMaps = list[list[np.ndarray]]
"""Maps of each participant and condition, (runs, B)."""

NOISE_SHARES = (0.3, 1.0, 2.0, 4.0)  # of the components' mean variance that is taken for noise
FOLDS = 6
_MOST_TRAINING = 128
"""Training participants whose components are found: more would add time and no better filter."""

Predictor = Callable[[np.ndarray], np.ndarray]


def condition_maps(
    runs: Sequence[Sequence[RunRecord]],
    trial_types: Sequence[tuple[str, str]],
    membership: np.ndarray,
    keys: np.ndarray,
) -> RunMaps:
    """Read the maps of the conditions in each run.

    Parameters
    ----------
    runs : sequence of sequence of RunRecord
        Runs of each participant.
    trial_types : sequence of (str, str)
        Task and trial type of the columns of `membership`.
    membership : ndarray of shape (C, K)
        Which trial types make up each condition.
    keys : ndarray of int of shape (B, 3)
        Supervoxels.
    """
    place = {pair: k for k, pair in enumerate(trial_types)}
    maps: RunMaps = []
    for records in runs:
        found: list[list[np.ndarray]] = [[] for _ in membership]
        for record in ordered_runs(records):
            columns = [place.get((record.run.task, name)) for name in record.trial_types]
            known = [k is not None for k in columns]
            if not any(known):
                continue
            effects = supervoxel_effects(record, keys)[known]
            weights = membership[:, [k for k in columns if k is not None]]
            for c in np.flatnonzero(weights.any(axis=1)):
                found[c].append(weights[c] @ effects / weights[c].sum())
        maps.append([np.array(several).reshape(-1, len(keys)) for several in found])
    return maps


def group_of(maps: Iterable[list[np.ndarray]]) -> np.ndarray:
    """Average over runs, then over participants, (C, B); NaN where nobody has the condition."""
    total, number = np.zeros(0), np.zeros(0)
    for own in maps:
        if not len(number):
            total, number = np.zeros((len(own), own[0].shape[1])), np.zeros(len(own))
        for c, several in enumerate(own):
            if len(several):
                total[c] += several.mean(axis=0)
                number[c] += 1
    group: np.ndarray = total / np.where(number > 0, number, np.nan)[:, None]
    return group


def some_of(training: Sequence[T]) -> list[T]:
    """Choose the training participants whose components are found, evenly."""
    chosen = np.linspace(0, len(training) - 1, min(len(training), _MOST_TRAINING)).astype(int)
    return [training[i] for i in chosen]


def deviations(maps: RunMaps, group: np.ndarray) -> RunMaps:
    """Take the mean and the part that is proportional to the group map out of each map."""
    return [
        [without_group(several, group[c]) for c, several in enumerate(participant)]
        for participant in maps
    ]


def likeness(first: RunMaps, second: RunMaps, *, same: bool) -> np.ndarray:
    """Correlate runs of participants with runs of participants.

    Parameters
    ----------
    first, second : RunMaps
        Deviations of P participants each.
    same : bool
        Whether the n-th run is compared with the n-th run, or with all others.

    Returns
    -------
    ndarray of shape (P, P)
        Means over runs and conditions; NaN where no runs can be compared.
    """
    total, number = (np.zeros((len(first), len(second))) for _ in range(2))
    for c in range(len(first[0]) if first else 0):
        one, other = (_stacked([own[c] for own in maps]) for maps in (first, second))
        pairs = cross_correlation(one.maps, other.maps)
        counted = (one.order[:, None] == other.order[None]) == same
        counted &= np.isfinite(pairs)
        total += one.members @ np.where(counted, pairs, 0.0) @ other.members.T
        number += one.members @ counted @ other.members.T
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


@dataclass(frozen=True)
class _Stacked:
    """Hold the maps (R, B) of all participants, their places in time and their owners, (P, R)."""

    maps: np.ndarray
    order: np.ndarray
    members: np.ndarray


def _stacked(own: Sequence[np.ndarray]) -> _Stacked:
    lengths = [len(maps) for maps in own]
    members = np.repeat(np.eye(len(own)), lengths, axis=1)
    order = np.concatenate([np.arange(length) for length in lengths])
    return _Stacked(np.concatenate(own), order, members)


def reachable(real: RunMaps, training: RunMaps | None) -> float:
    """Find the largest likeness to a left-out run that the other runs allow, c².

    Predictions are the mean of the other runs, whose principal components in the training
    participants are shrunk by their variance (Wiener filter). How much of it is noise is chosen
    on those participants by leaving some of them out; without them maps stay as they are.

    Parameters
    ----------
    real, training : RunMaps
        Deviations of real held-out, and of real training participants.

    Returns
    -------
    float
        NaN without two runs of a condition.
    """
    known: list[Predictor] = [_as_it_is]
    if training is not None and len(training) > 1:
        known.append(_best_predictor(some_of(training)))
    # maps as they are always foretell, so that the bound is never below that
    c = max(finite_mean([_foretold(own, predictor) for own in real]) for predictor in known)
    return float(max(c, 0.0) ** 2) if np.isfinite(c) else c


def _as_it_is(maps: np.ndarray) -> np.ndarray:
    return maps


def _best_predictor(training: RunMaps) -> Predictor:
    """Choose the filter that foretells runs of participants who were left out best."""
    gains: list[list[float]] = [[] for _ in NOISE_SHARES]
    for fold in range(min(FOLDS, len(training))):
        out = training[fold::FOLDS]
        components = _components([own for i, own in enumerate(training) if i % FOLDS != fold])
        for values, share in zip(gains, NOISE_SHARES, strict=True):
            values += [_foretold(own, _filter(*components, share)) for own in out]
    means = [finite_mean(values) for values in gains]
    best = int(np.argmax(np.nan_to_num(means, nan=-1.0)))
    return _filter(*_components(training), NOISE_SHARES[best])


def _components(participants: RunMaps) -> tuple[np.ndarray, np.ndarray]:
    """Compute variance (N,) and axes (N, B) of participants' maps."""
    pooled = np.concatenate([maps for own in participants for maps in own])
    if len(pooled) > pooled.shape[1]:
        power, axes = np.linalg.eigh(pooled.T @ pooled)
        return np.maximum(power, 1e-30), axes.T
    power, mixing = np.linalg.eigh(pooled @ pooled.T)  # the runs are few
    variance = np.maximum(power, 1e-30)
    return variance, (mixing / np.sqrt(variance)).T @ pooled


def _filter(variance: np.ndarray, axes: np.ndarray, share: float) -> Predictor:
    """Weigh components by the share of their variance that is no noise."""
    weights = np.maximum(variance - share * variance.mean(), 0) / np.maximum(variance, 1e-30)
    return lambda maps: (maps @ axes.T * weights) @ axes


def _foretold(own: list[np.ndarray], predictor: Predictor) -> float:
    """Correlate each run of a participant with what its other runs foretell."""
    several = [maps for maps in own if len(maps) > 1]
    if not several:
        return NAN
    others = [(maps.sum(axis=0) - maps) / (len(maps) - 1) for maps in several]
    return finite_mean(map_correlation(predictor(np.concatenate(others)), np.concatenate(several)))
