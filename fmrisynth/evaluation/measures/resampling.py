"""Resample participants: bootstrap samples, their intervals, and groups of equal size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

__all__ = [
    "average_of",
    "bootstrap_counts",
    "finite_mean",
    "interval",
    "matched_draws",
    "widening",
]

N_BOOTSTRAP = 500
N_DRAWS = 60
N_SHUFFLES = 200

NAN = float("nan")

Values = Mapping[str, float]


def bootstrap_counts(
    n_participants: int, rng: np.random.Generator, n_samples: int = N_BOOTSTRAP
) -> np.ndarray:
    """Draw bootstrap samples of participants as counts.

    Parameters
    ----------
    n_participants : int
        Number of participants ``P``.
    rng : numpy.random.Generator
        Source of randomness.
    n_samples : int
        Number of samples.

    Returns
    -------
    ndarray of int of shape (n_samples, P)
        Each row sums to ``P``; no rows for a single participant, who cannot be resampled.
    """
    if n_participants < 2:
        return np.zeros((0, n_participants), dtype=int)
    return rng.multinomial(n_participants, np.full(n_participants, 1 / n_participants), n_samples)


def interval(
    value: float,
    samples: np.ndarray,
    n_participants: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """Take the 95 % interval of a value from its bootstrap samples.

    The samples' percentiles are moved so that their mean lies on the value: a
    bootstrap sample holds fewer distinct participants than the cohort, which
    lowers every value that rests on averaged maps. Percentiles of a bootstrap
    of few participants are too narrow, since its variance is (n − 1) / n of the
    unbiased one and is itself uncertain: their distances from the value are
    widened by t/z · √(n / (n − 1)), with the 97.5 % quantiles t of Student's
    distribution with n − 1 degrees of freedom and z of the normal one
    (Hesterberg 2015, The American Statistician 69, 371–386).

    Parameters
    ----------
    value : float
        The value on all participants.
    samples : ndarray of shape (n_samples,)
        The value on bootstrap samples.
    n_participants : int
        Number of participants that were resampled; of two independent groups,
        that of the smaller one.
    bounds : tuple of float
        Range of the value.

    Returns
    -------
    low, high : float
        NaN with fewer than 20 usable samples, or fewer than two participants.
    """
    samples = np.asarray(samples)[np.isfinite(samples)]
    if len(samples) < 20 or n_participants < 2 or not np.isfinite(value):
        return NAN, NAN
    low, high = value + widening(n_participants) * (
        np.percentile(samples, [2.5, 97.5]) - samples.mean()
    )
    return float(np.clip(low, *bounds)), float(np.clip(high, *bounds))


def widening(n_participants: int) -> float:
    """Factor by which percentile intervals of n participants are too narrow, see `interval`."""
    n = n_participants
    return float(stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975) * np.sqrt(n / (n - 1)))


def matched_draws(
    n_real: int, n_training: int, rng: np.random.Generator, n_draws: int = N_DRAWS
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw pairs of equally large groups of held-out and training participants.

    Parameters
    ----------
    n_real, n_training : int
        Numbers of participants there are.
    rng : numpy.random.Generator
        Source of randomness.
    n_draws : int
        Number of random draws, when there is anything to draw.

    Returns
    -------
    list of (ndarray, ndarray)
        Rows of the held-out and of the training participants; empty when
        either side has none.
    """
    size = min(n_real, n_training)
    if size == 0:
        return []
    if n_real == n_training:
        n_draws = 1
    return [
        (
            np.sort(rng.choice(n_real, size, replace=False)),
            np.sort(rng.choice(n_training, size, replace=False)),
        )
        for _ in range(n_draws)
    ]


def finite_mean(values: np.ndarray | Sequence[float]) -> float:
    """Average the values that are finite; NaN when none is."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else NAN


def average_of(draws: Sequence[Values]) -> dict[str, float]:
    """Average a sequence of values by name; NaN where no draw has one."""
    names = dict.fromkeys(name for draw in draws for name in draw)
    means = {}
    for name in names:
        means[name] = finite_mean([draw.get(name, NAN) for draw in draws])
    return means
