"""Compare decoders of trial types that are trained on synthetic and on real data.

A linear (ridge) classifier tells trial types apart from the effect maps of
single runs, on supervoxels, and is always tested on real runs of held-out
participants.

Legend: P participants, B supervoxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from fmrisynth.bids.pieces import slices
from fmrisynth.evaluation.cohort.samples import Samples
from fmrisynth.evaluation.measures.resampling import NAN, finite_mean, interval
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import CORRELATION, PROPORTION, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import BOTH_GROUPS, share_of_ceiling
from fmrisynth.evaluation.metrics.uses import DECODERS

__all__ = ["FAMILY", "METRICS", "accuracy", "compare"]

_NOBODY_LEFT = "none: no real participant is left who could take the place of the synthetic ones"

METRICS = (
    Metric(
        "decoding_synthetic",
        section="use",
        bounds=PROPORTION,
        label="Decoding of real runs, trained on synthetic ones",
        what="accuracy on real held-out runs, trained on synthetic ones of other participants",
        ceiling="trained on as many real participants",
        floor="chance",
        rule=Rule(
            "at least 0.7 of its ceiling, as many real participants, where the interval can tell",
            share_of_ceiling(0.7, noisy=True),
            f"{BOTH_GROUPS}, two held-out ones and two trial types",
        ),
        use=DECODERS,
    ),
    Metric(
        "decoding_real",
        section="use",
        bounds=PROPORTION,
        label="Decoding, trained on real participants",
        what="accuracy, trained on n real participants",
        ceiling="none: it is real data",
        floor="chance",
        parts="Trained on real participants alone, by their number",
    ),
    Metric(
        "decoding_both",
        section="use",
        bounds=PROPORTION,
        label="Decoding, trained on all real training participants and the synthetic ones",
        what="accuracy, trained on all real participants that generators learned from, and on the "
        "synthetic ones",
        ceiling=_NOBODY_LEFT,
        floor="chance",
    ),
    Metric(
        "decoding_gain",
        section="use",
        bounds=CORRELATION,
        label="Gain of decoding by synthetic participants",
        what="decoding_both less the accuracy of the same decoder without synthetic runs",
        ceiling=_NOBODY_LEFT,
        floor="synthetic maps with shuffled labels",
    ),
)
"""What this family computes."""

_SIZES = (1, 2, 4, 8, 16, 32)
_DRAWS = 8
_SHUFFLES = 2
_RIDGE = 1.0
_AT_ONCE = 1024  # maps
_MOST_FOLDS = 16
"""Decoders that are trained in turn, each without some of the participants who are decoded."""

Apart = Callable[[Sequence[str]], Sequence[Samples]]
"""Gives the maps to learn from, in parts, for decoding some participants."""


def accuracy(train: Samples, test: Samples, *more: Samples) -> np.ndarray:
    """Train a ridge classifier and test it.

    Parameters
    ----------
    train, test : Samples
        Maps to learn from and to be told apart.
    *more : Samples
        Further maps to learn from.

    Returns
    -------
    ndarray of float of shape (n_test,)
        1 where the trial type was recognised, else 0.
    """
    learned = (train, *more)
    classes, index = np.unique(np.concatenate([s.labels for s in learned]), return_inverse=True)
    targets = np.eye(len(classes))[index]
    targets = targets - targets.mean(axis=0)  # classes of unequal size share one threshold
    weights = _ridge([s.features for s in learned], targets)
    scores = [maps @ weights for maps in _pieces([test.features])]
    return (classes[np.argmax(np.concatenate(scores), axis=1)] == test.labels).astype(float)


def _ridge(features: Sequence[np.ndarray], targets: np.ndarray) -> np.ndarray:
    """Solve a ridge regression on standardised features, several (n, B), for weights (B, C).

    It is solved on the smaller side; on that of the features, they are standardised piece by piece.
    """
    n, size = len(targets), features[0].shape[1]
    if n <= size:
        x = _standardised(np.concatenate(features))
        kernel = x @ x.T
        dual = np.linalg.solve(kernel + _RIDGE * np.trace(kernel) / n * np.eye(n), targets)
        return x.T @ dual
    products, moments, done = np.zeros((size, size)), np.zeros((size, targets.shape[1])), 0
    for x in _pieces(features):
        products += x.T @ x
        moments += x.T @ targets[done : done + len(x)]
        done += len(x)
    penalty = _RIDGE * np.trace(products) / n
    primal: np.ndarray = np.linalg.solve(products + penalty * np.eye(size), moments)
    return primal


def _pieces(features: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Standardise several (n, B) in pieces, of which memory holds copies."""
    for maps in features:
        for part in slices(len(maps), _AT_ONCE):
            yield _standardised(maps[part])


def compare(comparison: Comparison) -> Estimates:
    """Compare decoders that are trained on a generator's runs with those trained on real ones.

    Synthetic runs of a participant are never used to decode that participant; more than 16 are
    decoded in 16 groups.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data; or real data beside themselves,
        where held-out participants take the generator's place for each other.

    Returns
    -------
    dict
        ``decoding_synthetic`` (trained on synthetic; its ceiling on as many
        real training participants, its floor chance); ``decoding_real[n]`` for
        n = 1, 2, 4 … and all training participants; ``decoding_both`` and
        ``decoding_gain``, which is its difference from that of all real ones
        (floor: the synthetic maps with shuffled labels). A generator has
        learned from all of them; beside fewer it would bring real data along.
        The last two are left out where only some of them are compared.
        Empty without training participants, two held-out ones and two trial types.
    """
    cohort = comparison.cohort
    if cohort.training is None:
        return {}
    synthetic = cohort.map_samples(comparison.runs)
    real = cohort.map_samples(comparison.real_runs)
    training = cohort.map_samples(comparison.training_runs)
    participants = [str(name) for name in np.unique(real.participants)]
    n_trained = len(np.unique(training.participants))
    n_classes = len(np.unique(real.labels))
    if n_classes < 2 or len(participants) < 2:
        return {}
    chance = 1.0 / n_classes

    def others(group: Sequence[str]) -> Samples:
        return synthetic.of(group, keep=False)

    alone = _accuracies(real, [lambda group: [others(group)]])

    def trained_on(size: int, purpose: str, n_draws: int = _DRAWS) -> Iterator[Samples]:
        return _draw(training, size, n_draws, comparison.shared_random(purpose))

    size = len(participants) - max(map(len, _groups(real)))
    same_size = comparison.once(
        "as many real", lambda: finite_mean(_accuracies(real, trained_on(size, "as many real")))
    )
    rng = comparison.random("bootstrap of decoding_synthetic")
    estimates = {"decoding_synthetic": _estimate(alone, rng, (0.0, 1.0), same_size, chance)}
    for n in sorted({*(n for n in _SIZES if n < n_trained), n_trained}):
        chosen = trained_on(n, f"{n} real", 1 if n == n_trained else _DRAWS)
        without = comparison.once(f"{n} real", partial(_accuracies, real, chosen))
        rng = comparison.shared_random(f"bootstrap of {n} real")
        estimates[f"decoding_real[{n}]"] = _estimate(without, rng, (0.0, 1.0), floor=chance)
    if cohort.all_training:
        estimates |= _gain(comparison, real, training, others, without)
    return estimates


def _gain(
    comparison: Comparison,
    real: Samples,
    training: Samples,
    others: Callable[[Sequence[str]], Samples],
    without: np.ndarray,
) -> Estimates:
    """Compare decoders trained on all real participants with and without synthetic ones."""
    both = _accuracies(real, [lambda group: [training, others(group)]])
    shuffling = comparison.random("shuffled labels")

    def mixed(group: Sequence[str]) -> Sequence[Samples]:
        return training, others(group).mixed(shuffling)

    worst = finite_mean(_accuracies(real, [mixed] * _SHUFFLES)) - finite_mean(without)
    rng = comparison.random("bootstrap of the gain")
    chance = 1.0 / len(np.unique(real.labels))
    return {
        "decoding_both": _estimate(both, rng, (0.0, 1.0), floor=chance),
        "decoding_gain": _estimate(both - without, rng, (-1.0, 1.0), floor=worst),
    }


def _groups(real: Samples) -> list[list[str]]:
    """Split participants into those who are decoded together: each alone where they are few."""
    participants = np.unique(real.participants)
    folds = np.array_split(participants, min(len(participants), _MOST_FOLDS))
    return [[str(name) for name in group] for group in folds]


def _accuracies(real: Samples, trainings: Iterable[Samples | Apart]) -> np.ndarray:
    """Average the accuracy on each participant over several training sets: (P,).

    A training set is the same for all participants, or made for those who are decoded.
    """
    participants = [str(name) for name in np.unique(real.participants)]
    rows = []
    for training in trainings:
        found = np.full(len(real.labels), NAN)
        for group in [participants] if isinstance(training, Samples) else _groups(real):
            train = [training] if isinstance(training, Samples) else training(group)
            if any(len(part.labels) for part in train):
                decoded = np.isin(real.participants, group)
                found[decoded] = accuracy(train[0], real.of(group), *train[1:])
        rows.append([found[real.participants == name].mean() for name in participants])
    return np.mean(rows, axis=0) if rows else np.full(len(participants), NAN)


def _draw(
    training: Samples, size: int, n_draws: int, rng: np.random.Generator
) -> Iterator[Samples]:
    """Draw sets of ``size`` training participants; none where there are not as many."""
    participants = [str(name) for name in np.unique(training.participants)]
    if 1 <= size <= len(participants):
        for _ in range(n_draws):
            yield training.of([str(name) for name in rng.choice(participants, size, replace=False)])


def _estimate(
    values: np.ndarray,
    rng: np.random.Generator,
    bounds: tuple[float, float],
    ceiling: float = NAN,
    floor: float = NAN,
) -> Estimate:
    value = float(np.mean(values))
    samples = values[rng.integers(0, len(values), (500, len(values)))].mean(axis=1)
    return Estimate(value, *interval(value, samples, len(values), bounds), ceiling, floor)


def _standardised(features: np.ndarray) -> np.ndarray:
    """Scale each map to mean 0 and unit norm: the pattern counts, not the size of the effect."""
    features = features.astype(np.float64)
    centred = features - features.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(norm > 0, norm, 1.0)


FAMILY = Family(
    "decoding",
    "Do decoders that learn from synthetic runs recognise real ones?",
    METRICS,
    compare,
    compare,
)
