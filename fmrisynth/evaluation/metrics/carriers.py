"""Audit mean images: whether a synthetic participant can be taken for a real one.

Legend: P synthetic participants, Q real held-out ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.bids.synthetic_sidecars import CARRIER_KEY, PROVENANCE_KEY
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.carriers import (
    closest,
    mean_images,
    nearer,
    nearest,
    nearest_other,
    retest_distances,
)
from fmrisynth.evaluation.measures.resampling import NAN, bootstrap_counts, interval
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import POSITIVE, PROPORTION, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import BOTH_GROUPS, like_chance
from fmrisynth.evaluation.metrics.uses import PRIVACY
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["FAMILY", "METRICS", "compare", "compare_real"]

_RECOGNISED = 95
"""Percentile of the distances between halves of a participant's runs, up to which two images are
taken for one participant's."""

_GIVEN = {
    "own": "the runs have their participants' own mean images, as was asked for (--carrier own): "
    "people are recognisable from them",
    "group-mean": "all runs have the mean participant's image (--carrier group-mean), which is "
    "nearer to everybody than people are to each other",
}

METRICS = (
    Metric(
        "carrier_auc",
        section="copying",
        bounds=PROPORTION,
        label="Mean images nearer to training participants than real people are (AUC)",
        what="chance that a synthetic participant's mean image is nearer to its nearest training "
        "participant than a real participant's is to its nearest other one, on supervoxels of "
        "12 mm",
        ceiling="the same of held-out participants beside training ones; 0.5 but for chance",
        floor="the same of training participants, with their own other runs; without any, 1",
        rule=Rule("at most 0.55", like_chance(0.55), BOTH_GROUPS),
        use=PRIVACY,
    ),
    Metric(
        "carrier_distance",
        section="copying",
        bounds=POSITIVE,
        label="Distance of mean images from the nearest training participant, synthetic / real",
        what="median root mean square difference of a mean image from the nearest training "
        "participant's, synthetic / real participants with others",
        ceiling="the same of held-out participants beside training ones",
        floor="the same of training participants, with their own other runs; without any, 0",
    ),
    Metric(
        "carrier_identification",
        section="copying",
        bounds=PROPORTION,
        label="Mean images taken for a real participant's",
        what="share of synthetic participants whose mean image is as near to that of a real "
        "participant as halves of a participant's runs are to each other (95th percentile)",
        ceiling="the same of real held-out participants, with training ones",
        floor="1, everybody is recognised",
    ),
)
"""What this family computes."""


@dataclass(frozen=True)
class _Real:
    """Mean images of real participants, (P, B), and what distances there are between them.

    `to_training` are the distances of held-out participants from the nearest training one,
    `others` those of training participants from the nearest other one, `copies` those of one half
    of a training participant's runs from the nearest other half, and `limit` is the distance up
    to which two images are taken for one participant's.
    """

    held_out: np.ndarray
    training: np.ndarray
    to_training: np.ndarray
    others: np.ndarray
    copies: np.ndarray
    limit: float

    @property
    def reference(self) -> np.ndarray:
        """Distances of all real participants from the nearest other training one."""
        return np.concatenate([self.to_training, self.others])


def compare(comparison: Comparison) -> Estimates:
    """Audit the mean images of a generator, those of runs for training participants as well.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data.

    Returns
    -------
    dict
        ``carrier_auc``, ``carrier_distance`` and ``carrier_identification``, the last one where
        real participants have two runs. Empty without training participants, two held-out ones
        and a brain that all share. Where the images were asked for (``Carrier`` of the
        sidecars), the estimates say so and are not judged.
    """
    real = _real(comparison)
    if real is None:
        return {}
    cohort = comparison.cohort
    by_participant = {p: list(runs) for p, runs in cohort.participants[comparison.source].items()}
    for record in cohort.for_training.get(comparison.source, ()):
        by_participant.setdefault(record.run.participant, []).append(record)
    images = mean_images(by_participant, cohort.mask, cohort.grid)
    distances = nearest(images.whole, real.training)
    known = np.concatenate([real.training, real.held_out])
    taken = closest(images.whole, known) <= real.limit
    records = [record for runs in by_participant.values() for record in runs]
    return _estimates(comparison, real, (distances, real.reference), taken, _given(records))


def compare_real(comparison: Comparison) -> Estimates:
    """Audit held-out participants' images as if they were synthetic: the control.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`.
    """
    real = _real(comparison)
    if real is None:
        return {}
    taken = closest(real.held_out, real.training) <= real.limit
    return _estimates(comparison, real, (real.to_training, real.others), taken, "")


def _real(comparison: Comparison) -> _Real | None:
    """Measure the real participants once for all generators."""
    cohort = comparison.cohort
    groups = [cohort.participants[name] for name in (REAL, TRAINING)]
    if min(map(len, groups)) < 2:
        return None

    def measured() -> _Real:
        held_out, training = (mean_images(g, cohort.mask, cohort.grid) for g in groups)
        halves = training.halves[np.isfinite(training.halves[:, 0, 0])]
        retest = retest_distances(held_out, training)
        return _Real(
            held_out.whole,
            training.whole,
            nearest(held_out.whole, training.whole),
            nearest_other(training.whole),
            nearest(halves[:, 0], halves[:, 1]) if len(halves) > 1 else np.zeros(1),
            float(np.percentile(retest, _RECOGNISED)) if len(retest) else NAN,
        )

    return comparison.once("real mean images", measured)


def _estimates(
    comparison: Comparison,
    real: _Real,
    distances: tuple[np.ndarray, np.ndarray],
    taken: np.ndarray,
    given: str,
) -> Estimates:
    n, smaller = len(taken), min(map(len, distances))
    counts = [
        bootstrap_counts(len(part), comparison.random(f"bootstrap {k}"))
        for k, part in enumerate(distances)
    ]
    drawn = [
        tuple(np.repeat(part, c) for part, c in zip(distances, both, strict=True))
        for both in zip(*counts, strict=n > 1)
    ]
    measures = {
        "carrier_auc": (nearer, (0.0, 1.0)),
        "carrier_distance": (_ratio, (0.0, np.inf)),
    }
    estimates = {}
    for name, (measure, bounds) in measures.items():
        value = measure(*distances)
        floor = measure(real.copies, real.reference)
        samples = np.array([measure(*pair) for pair in drawn])
        ceiling = measure(real.to_training, real.others)
        limits = interval(value, samples, smaller, bounds)
        estimates[name] = Estimate(value, *limits, ceiling, floor, given)
    if np.isfinite(real.limit):
        share = float(taken.mean())
        limits = interval(share, counts[0] @ taken / n, n, (0.0, 1.0))
        control = float((closest(real.held_out, real.training) <= real.limit).mean())
        estimates["carrier_identification"] = Estimate(share, *limits, control, 1.0, given)
    return estimates


def _ratio(distances: np.ndarray, reference: np.ndarray) -> float:
    unit = float(np.median(reference))
    return float(np.sqrt(np.median(distances) / unit)) if unit > 0 else NAN


def _given(records: Sequence[RunRecord]) -> str:
    """Say that the images were asked for; empty where they are drawn, or nothing is known."""
    kinds = set()
    for record in records:
        provenance = record.run.metadata.get(PROVENANCE_KEY)
        kinds.add(provenance.get(CARRIER_KEY) if isinstance(provenance, Mapping) else None)
    return _GIVEN.get(str(kinds.pop()), "") if len(kinds) == 1 else ""


FAMILY = Family(
    "carriers",
    "Can a synthetic participant be taken for a real one by its mean image?",
    METRICS,
    compare,
    compare_real,
)
