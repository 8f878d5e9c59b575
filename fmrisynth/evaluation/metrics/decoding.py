"""Use: whether synthetic data help to decode trial types from real data.

A linear (ridge) classifier tells trial types apart from the effect maps of
single runs, on coarse blocks, and is always tested on real runs of held-out
participants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmrisynth.evaluation.cohort.samples import Samples
from fmrisynth.evaluation.measures.resampling import NAN, Figure, finite_mean, interval

__all__ = ["accuracy", "compare_decoding"]

_SIZES = (1, 2, 4, 8, 16, 32)
_DRAWS = 8
_RIDGE = 1.0


def accuracy(train: Samples, test: Samples) -> np.ndarray:
    """Train a ridge classifier and test it.

    Parameters
    ----------
    train, test : Samples
        Maps to learn from and to be told apart.

    Returns
    -------
    ndarray of float, shape (n_test,)
        1 where the trial type was recognised, else 0.
    """
    x, z = _standardised(train.features), _standardised(test.features)
    classes, index = np.unique(train.labels, return_inverse=True)
    targets = np.eye(len(classes))[index]
    targets = targets - targets.mean(axis=0)  # classes of unequal size share one threshold
    kernel = x @ x.T
    ridge = _RIDGE * np.trace(kernel) / len(x)
    weights = np.linalg.solve(kernel + ridge * np.eye(len(x)), targets)
    return (classes[np.argmax(z @ x.T @ weights, axis=1)] == test.labels).astype(float)


def compare_decoding(
    made: Samples, real: Samples, training: Samples, rng: np.random.Generator
) -> dict[str, Figure]:
    """Figures of utility of a generator.

    Synthetic runs of a participant are never used to decode that participant.

    Parameters
    ----------
    made : Samples
        Synthetic maps of held-out participants.
    real : Samples
        Real maps of the same participants: what is decoded.
    training : Samples
        Real maps of training participants.
    rng : numpy.random.Generator
        Draws the training participants.

    Returns
    -------
    dict
        ``decoding_synthetic`` (trained on synthetic; its ceiling on as many
        real training participants, its floor chance) and, for n = 1, 2, 4 …
        training participants, ``decoding_real[n]``, ``decoding_both[n]`` and
        ``decoding_gain[n]``, their difference. The ceiling of the last two
        adds real training participants, as many as there are synthetic ones;
        the floor of the gain adds the synthetic maps with shuffled labels.
    """
    people = [str(name) for name in np.unique(real.people)]
    trained = [str(name) for name in np.unique(training.people)]
    n_classes = len(np.unique(real.labels))
    if n_classes < 2 or len(people) < 2:
        return {}
    chance = 1.0 / n_classes
    alone = _per_person(people, real, [[made.of([p], keep=False) for p in people]])
    draws = [_draw(training, trained, len(people) - 1, rng) for _ in range(_DRAWS)]
    same_size = _per_person(people, real, [[d] * len(people) for d in draws if d is not None])
    figures = {
        "decoding_synthetic": _figure(alone, rng, (0.0, 1.0), finite_mean(same_size), chance),
    }
    for size in (n for n in _SIZES if n <= len(trained)):
        n_draws = 1 if size == len(trained) else _DRAWS
        chosen = [d for d in (_draw(training, trained, size, rng) for _ in range(n_draws)) if d]
        without = _per_person(people, real, [[d] * len(people) for d in chosen])
        both = _per_person(
            people, real, [[d.plus(made.of([p], keep=False)) for p in people] for d in chosen]
        )
        more = size + len(people) - 1
        larger = [d for d in (_draw(training, trained, more, rng) for _ in range(_DRAWS)) if d]
        best = finite_mean(_per_person(people, real, [[d] * len(people) for d in larger]))
        mixed = [[d.plus(made.of([p], keep=False).mixed(rng)) for p in people] for d in chosen[:2]]
        worst = finite_mean(_per_person(people, real, mixed))
        name, base = f"[{size}]", finite_mean(without)
        figures[f"decoding_real{name}"] = _figure(without, rng, (0.0, 1.0), floor=chance)
        figures[f"decoding_both{name}"] = _figure(both, rng, (0.0, 1.0), best, chance)
        figures[f"decoding_gain{name}"] = _figure(
            both - without, rng, (-1.0, 1.0), best - base, worst - base
        )
    return figures


def _per_person(
    people: Sequence[str], real: Samples, trainings: Sequence[Sequence[Samples]]
) -> np.ndarray:
    """Mean accuracy for each participant over several training sets: (P,)."""
    rows = [
        [
            float(accuracy(train, real.of([person])).mean()) if len(train.labels) else NAN
            for person, train in zip(people, sets, strict=True)
        ]
        for sets in trainings
    ]
    return np.mean(rows, axis=0) if rows else np.full(len(people), NAN)


def _draw(
    training: Samples, people: Sequence[str], size: int, rng: np.random.Generator
) -> Samples | None:
    if size > len(people) or size < 1:
        return None
    return training.of([str(name) for name in rng.choice(people, size, replace=False)])


def _figure(
    values: np.ndarray,
    rng: np.random.Generator,
    bounds: tuple[float, float],
    ceiling: float = NAN,
    floor: float = NAN,
) -> Figure:
    value = float(np.mean(values))
    samples = values[rng.integers(0, len(values), (500, len(values)))].mean(axis=1)
    return Figure(value, *interval(value, samples, bounds), ceiling, floor)


def _standardised(features: np.ndarray) -> np.ndarray:
    """Scale each map to mean 0 and unit norm: the pattern counts, not the size of the effect."""
    centred = features - features.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(norm > 0, norm, 1.0)
