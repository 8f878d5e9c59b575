"""Compare participants' own maps: whether a synthetic one resembles its participant's real one.

Maps are compared on supervoxels of 12 mm, where the noise of single voxels averages out.

Legend: P participants, C conditions, K trial types, N coordinates or voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.evaluation.cohort.maps import MapTable, merge
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.identification import top1
from fmrisynth.evaluation.measures.individuals import between_variance
from fmrisynth.evaluation.measures.own_runs import (
    RunMaps,
    condition_maps,
    deviations,
    group_of,
    likeness,
    reachable,
)
from fmrisynth.evaluation.measures.resampling import (
    N_DRAWS,
    NAN,
    bootstrap_counts,
    finite_mean,
    interval,
)
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import CORRELATION, PROPORTION, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import TWO_RUNS, between, share_of_retest
from fmrisynth.evaluation.metrics.uses import INDIVIDUALS

__all__ = [
    "FAMILY",
    "METRICS",
    "compare",
    "compare_real",
]

_EXCHANGED = "participants taken for each other"

METRICS = (
    Metric(
        "individual_identification",
        section="individuals",
        bounds=PROPORTION,
        label="Participants recognised from their maps",
        what="share of participants recognised from the maps of their synthetic runs",
        ceiling="real runs from the same participants' other runs",
        floor=_EXCHANGED,
    ),
    Metric(
        "individual_correlation",
        section="individuals",
        bounds=CORRELATION,
        label="Participants' own maps",
        what="correlation of runs with the real run they imitate, without the group map",
        ceiling="the largest that the participant's other runs allow, if the run itself is unknown",
        floor=_EXCHANGED,
        rule=Rule(
            "at least 0.85 of what the participants' other runs allow, both above the floor",
            share_of_retest(0.85),
            f"{TWO_RUNS}, who are no new ones",
        ),
        use=INDIVIDUALS,
    ),
    Metric(
        "diversity_participants_ratio",
        section="diversity",
        label="Differences between participants, synthetic / real",
        what="variance of maps between participants beyond noise, synthetic / real",
        ceiling="training participants / held-out participants",
        floor="0, all participants the same",
        rule=Rule(
            "0.5 to 2 (where real participants differ beyond noise)",
            between(0.5, 2.0),
            f"{TWO_RUNS}, who differ beyond noise",
        ),
        use=INDIVIDUALS,
    ),
    Metric(
        "map_variance_ratio",
        section="diversity",
        label="Differences between participants with noise, synthetic / real",
        what="variance of maps between participants with their noise, synthetic / real",
        ceiling="training participants / held-out participants",
        floor="the noise alone, all participants the same",
    ),
)
"""What this family computes."""

Halves = tuple[np.ndarray, np.ndarray]

_BEYOND_NOISE = 2.5
"""Standard errors that the real variance between participants must lie above 0."""

_N_BOOTSTRAP = 200

_BOUNDS = {metric.name: metric.bounds for metric in METRICS}


def compare(comparison: Comparison) -> Estimates:
    """Compare participants' synthetic maps with their real ones.

    Each synthetic run is compared with the real run that it imitates, which a generator may not
    have used, and with the participant's other runs, which it may have used; of the two
    likenesses the smaller one counts, so that neither copies of a run nor those of the others
    pass for individuals. The ceiling of the correlation is what the other runs allow
    (`fmrisynth.evaluation.measures.own_runs`). Variances rest on halves of the runs.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data.

    Returns
    -------
    dict
        ``individual_identification`` (chance ``1 / P``), ``individual_correlation``
        (floor: with other participants), ``diversity_participants_ratio``
        (synthetic / real variance between participants) and
        ``map_variance_ratio`` (the same with the noise of the maps; its floor is the noise alone).
    """
    if not comparison.cohort.conditions.names:  # runs at rest have no maps of conditions
        return {}
    synthetic, real, training = comparison.supervoxel_tables()
    if comparison.unpaired:
        split = min(len(synthetic.halved), len(real.halved)) > 1
        if split:
            synthetic, real = synthetic.of(synthetic.halved), real.of(real.halved)
        rows = np.arange(len(real.participants))
    else:
        participants = [p for p in synthetic.halved if p in real.halved]
        split = len(participants) > 1
        if split:  # who has lost too many runs is left out
            synthetic, real = synthetic.of(participants), real.of(participants)
        rows = np.array([real.participants.index(name) for name in synthetic.participants])
    if min(len(rows), len(synthetic.participants)) < 2:
        return {}
    estimates = {} if comparison.unpaired else _identity(comparison, synthetic.participants)
    # At the level of trial types, which are more: the error is over conditions.
    each = np.eye(comparison.cohort.conditions.membership.shape[1])
    others = training if training is not None and len(training.participants) > 1 else None
    by_type = _halves(real, each, rows) if split else None
    if by_type is not None:
        reference = _halves(others, each) if others is not None and others.has_halves else None
        estimates["diversity_participants_ratio"] = _true_ratio(
            comparison, _halves(synthetic, each), by_type, reference
        )
    estimates["map_variance_ratio"] = _total_ratio(
        comparison,
        merge(synthetic.whole(), each),
        merge(real.whole()[rows], each),
        merge(others.whole(), each) if others is not None else None,
        by_type,
    )
    return estimates


def compare_real(comparison: Comparison) -> Estimates:
    """Compare participants' maps from one half of their real runs with those from the other.

    The ratios of variance are those of one half of the participants to the other half.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`; empty without two runs of each condition.
    """
    real = comparison.cohort.supervoxel_tables[REAL]
    training = comparison.cohort.training_supervoxels
    real = real.of(real.halved)
    n = len(real.participants)
    if n < 2 or not comparison.cohort.conditions.names:
        return {}
    estimates = _identity(comparison, real.participants)
    if n < 4:
        return estimates
    each = np.eye(comparison.cohort.conditions.membership.shape[1])
    first, second = _halves(real, each)
    whole = merge(real.whole(), each)
    reference = training if training is not None and training.has_halves else None
    pairs = {"map_variance_ratio": (whole, whole)}
    if _differ((first, second), _halves(reference, each) if reference is not None else None):
        pairs["diversity_participants_ratio"] = (first, second)
    for name, maps in pairs.items():
        ratios = _ratios_of_halves(*maps, comparison.random(f"halves of {name}"))
        if len(ratios):
            low, high = np.percentile(ratios, [2.5, 97.5])
            estimates[name] = Estimate(float(np.median(ratios)), float(low), float(high), 1.0, 0.0)
    return estimates


def _ratios_of_halves(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Ratios of the variance between participants of two halves of them, both ways round."""
    ratios = []
    n = len(first)
    for _ in range(N_DRAWS):
        order = rng.permutation(n)
        a, b = order[: n // 2], order[n // 2 : 2 * (n // 2)]
        above, below = (between_variance(first[rows], second[rows])[0] for rows in (a, b))
        if above > 0 and below > 0:
            ratios += [above / below, below / above]
    return np.array(ratios)


def _halves(table: MapTable, membership: np.ndarray, rows: np.ndarray | None = None) -> Halves:
    """Both halves of the runs of each participant, each (P, C, N)."""
    n = len(table.participants)
    first, second = (merge(table.half(np.full(n, h)), membership) for h in (0, 1))
    return (first, second) if rows is None else (first[rows], second[rows])


def _run_maps(comparison: Comparison, source: str, participants: Sequence[str]) -> RunMaps:
    """Read the maps of a source's runs, participant by participant."""
    cohort = comparison.cohort
    runs = [cohort.participants[source][name] for name in participants]
    conditions = cohort.conditions
    return condition_maps(runs, conditions.trial_types, conditions.membership, cohort.keys)


@dataclass(frozen=True)
class _References:
    """What real runs say, without the group map: of the participants, and of their retest."""

    group: np.ndarray
    real: RunMaps
    retest: np.ndarray
    reachable: float


def _references(comparison: Comparison, participants: Sequence[str]) -> _References:
    real = _run_maps(comparison, REAL, participants)
    training = _run_maps(comparison, TRAINING, list(comparison.cohort.participants[TRAINING]))
    group = group_of(training or real)
    real = deviations(real, group)
    allowed = reachable(real, deviations(training, group) if training else None)
    return _References(group, real, likeness(real, real, same=False), allowed)


def _identity(comparison: Comparison, participants: Sequence[str]) -> Estimates:
    references = comparison.once(
        f"own runs of {', '.join(participants)}", lambda: _references(comparison, participants)
    )
    if comparison.source == REAL:
        matrix, allowed = references.retest, float(np.mean(np.diag(references.retest)))
    else:
        maps = deviations(_run_maps(comparison, comparison.source, participants), references.group)
        ways = [likeness(maps, references.real, same=same) for same in (True, False)]
        known = [way for way in ways if np.isfinite(np.diag(way)).all()]
        matrix = min(known or ways, key=lambda way: float(np.diag(way).mean()))
        allowed = references.reachable
    n = len(matrix)
    counts = bootstrap_counts(n, comparison.random("bootstrap of own maps"))
    # Chance level: every cyclic permutation of the participants.
    permuted = [np.roll(matrix, shift, axis=1) for shift in range(1, n)]
    values = {
        "individual_identification": (
            _hits(matrix),
            top1(references.retest),
            finite_mean([float(_hits(other).mean()) for other in permuted]),
        ),
        "individual_correlation": (
            np.diag(matrix),
            allowed,
            finite_mean([float(np.diag(other).mean()) for other in permuted]),
        ),
    }
    estimates = {}
    for name, (each, ceiling, floor) in values.items():
        value = float(np.mean(each))
        limits = interval(value, counts @ each / n, n, _BOUNDS[name])
        estimates[name] = Estimate(value, *limits, ceiling, floor)
    return estimates


def _hits(matrix: np.ndarray) -> np.ndarray:
    """Tell for each row whether its diagonal entry is the largest."""
    others = np.where(np.eye(len(matrix), dtype=bool), -np.inf, matrix)
    return (np.diag(matrix) > others.max(axis=1)).astype(float)


def _differ(real: Halves, training: Halves | None) -> bool:
    """Tell whether real participants differ beyond noise, on all real participants there are.

    A generator's ratio rests on held-out participants alone; only whether there
    is anything to reach is learned from all of them.
    """
    halves = real
    if training is not None:
        halves = (np.concatenate([real[0], training[0]]), np.concatenate([real[1], training[1]]))
    true, error = between_variance(*halves)
    return true > _BEYOND_NOISE * error


def _total_ratio(
    comparison: Comparison,
    synthetic: np.ndarray,
    real: np.ndarray,
    training: np.ndarray | None,
    halves: Halves | None,
) -> Estimate:
    """Synthetic over real variance of the participants' maps, noise included."""
    total = between_variance(real, real)[0]
    if not total > 0:
        return Estimate(NAN)
    value = between_variance(synthetic, synthetic)[0] / total
    samples = _ratios(
        comparison, (synthetic, synthetic), (real, real), "bootstrap of total variance"
    )
    ceiling = between_variance(training, training)[0] / total if training is not None else NAN
    # The noise alone: what a generator has that gives all participants the same response.
    true = between_variance(*halves)[0] if halves is not None else NAN
    floor = float(np.clip(1.0 - true / total, 0.0, 1.0))
    n_participants = min(len(synthetic), len(real))
    return Estimate(value, *interval(value, samples, n_participants), ceiling, floor)


def _ratios(comparison: Comparison, above: Halves, below: Halves, purpose: str) -> np.ndarray:
    """Divide variances between participants in bootstrap samples."""
    counts = comparison.draws_of(len(above[0]), len(below[0]), purpose, _N_BOOTSTRAP)
    samples = []
    for drawn in zip(*counts, strict=True):
        own, others = (np.repeat(np.arange(len(number)), number) for number in drawn)
        unit = between_variance(below[0][others], below[1][others])[0]
        if min((number > 0).sum() for number in drawn) > 1 and unit > 0:
            samples.append(between_variance(above[0][own], above[1][own])[0] / unit)
    return np.array(samples)


def _true_ratio(
    comparison: Comparison, synthetic: Halves, real: Halves, training: Halves | None
) -> Estimate:
    """Synthetic over real variance between participants, with its interval and ceiling.

    NaN where the real participants themselves do not differ beyond noise:
    there is nothing to reach then. The floor is no difference at all.
    """
    true, _ = between_variance(*real)
    if not true > 0 or not _differ(real, training):
        return Estimate(NAN)
    value = between_variance(*synthetic)[0] / true
    samples = _ratios(comparison, synthetic, real, "bootstrap of variance")
    ceiling = between_variance(*training)[0] / true if training is not None else NAN
    n_participants = min(len(synthetic[0]), len(real[0]))
    return Estimate(value, *interval(value, samples, n_participants), ceiling, 0.0)


FAMILY = Family(
    "individuals",
    "Are a participant's synthetic maps its own, and do participants differ as real ones do?",
    METRICS,
    compare,
    compare_real,
)
