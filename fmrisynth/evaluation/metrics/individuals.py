"""Compare participants' own maps: whether a synthetic one resembles its participant's real one.

Maps are compared on supervoxels of 12 mm, where the noise of single voxels averages out.

Legend: P participants, C conditions, K trial types, N coordinates or voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fmrisynth.evaluation.cohort.map_table import MapTable
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
    some_of,
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

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]
"""Maps of one trial type after the other, (P, N) twice, which are compared."""

Drawn = tuple[np.ndarray, np.ndarray]

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
    own, truth = _Maps(synthetic), _Maps(real, rows)
    others = _Maps(training) if training is not None and len(training.participants) > 1 else None
    if split:
        estimates["diversity_participants_ratio"] = _true_ratio(comparison, own, truth, others)
    estimates["map_variance_ratio"] = _total_ratio(comparison, own, truth, others, split)
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
    own = _Maps(real)
    reference = _Maps(training) if training is not None and training.has_halves else None
    measured = {"map_variance_ratio": own.twice}
    if _differ(own, reference):
        measured["diversity_participants_ratio"] = own.halves
    for name, pairs in measured.items():
        ratios = _ratios_of_halves(pairs(), n, comparison.random(f"halves of {name}"))
        if len(ratios):
            low, high = np.percentile(ratios, [2.5, 97.5])
            estimates[name] = Estimate(float(np.median(ratios)), float(low), float(high), 1.0, 0.0)
    return estimates


def _ratios_of_halves(pairs: Pairs, n: int, rng: np.random.Generator) -> np.ndarray:
    """Ratios of the variance between participants of two halves of them, both ways round."""
    sides = np.zeros((N_DRAWS, 2, n), dtype=int)
    for side in sides:
        order = rng.permutation(n)
        side[0, order[: n // 2]] = side[1, order[n // 2 : 2 * (n // 2)]] = 1
    variances = between_variance(pairs, sides.reshape(-1, n))[0].reshape(-1, 2)
    above, below = variances[(variances > 0).all(axis=1)].T
    return np.stack([above / below, below / above], axis=1).ravel()


@dataclass(frozen=True)
class _Maps:
    """Give participants' maps trial type by trial type, of which there are more than conditions.

    Memory then holds those of one trial type, (P, N).
    """

    table: MapTable
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.table.participants if self.rows is None else self.rows)

    def halves(self) -> Pairs:
        """Pair the maps of the two halves of the runs."""
        for halves, _ in self._types():
            yield halves[:, 0], halves[:, 1]

    def twice(self) -> Pairs:
        """Pair the maps of all runs with themselves, so that their noise counts as well."""
        for _, whole in self._types():
            yield whole, whole

    def _types(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for k in range(self.table.n_runs.shape[2]):
            halves, whole = self.table.of_type(k)
            yield (halves, whole) if self.rows is None else (halves[self.rows], whole[self.rows])


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
    names = list(comparison.cohort.participants[TRAINING])
    # one participant after the other: those of whom components are found are fewer
    group = group_of(
        maps for name in names for maps in _run_maps(comparison, TRAINING, [name])
    ) if names else group_of(real)  # fmt: skip
    real = deviations(real, group)
    training = deviations(_run_maps(comparison, TRAINING, some_of(names)), group)
    allowed = reachable(real, training or None)
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
    floors = [
        (float(_hits(other).mean()), float(np.diag(other).mean()))
        for other in (np.roll(matrix, shift, axis=1) for shift in range(1, n))
    ]
    recognised, alike = (finite_mean(floor) for floor in zip(*floors, strict=True))
    values = {
        "individual_identification": (_hits(matrix), top1(references.retest), recognised),
        "individual_correlation": (np.diag(matrix), allowed, alike),
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


def _differ(real: _Maps, training: _Maps | None) -> bool:
    """Tell whether real participants differ beyond noise, on all real participants there are.

    A generator's ratio rests on held-out participants alone; only whether there
    is anything to reach is learned from all of them.
    """
    pairs = real.halves()
    if training is not None:
        pairs = (
            (np.concatenate([a, c]), np.concatenate([b, d]))
            for (a, b), (c, d) in zip(real.halves(), training.halves(), strict=True)
        )
    true, error = between_variance(pairs)
    return bool(true[0] > _BEYOND_NOISE * error[0])


def _variance(pairs: Pairs) -> float:
    return float(between_variance(pairs)[0][0])


def _total_ratio(
    comparison: Comparison, synthetic: _Maps, real: _Maps, training: _Maps | None, split: bool
) -> Estimate:
    """Synthetic over real variance of the participants' maps, noise included."""
    total = _variance(real.twice())
    if not total > 0:
        return Estimate(NAN)
    value = _variance(synthetic.twice()) / total
    counts = _drawn(comparison, synthetic, real, "bootstrap of total variance")
    samples = _ratios(synthetic.twice(), real.twice(), counts)
    ceiling = _variance(training.twice()) / total if training is not None else NAN
    # The noise alone: what a generator has that gives all participants the same response.
    true = _variance(real.halves()) if split else NAN
    floor = float(np.clip(1.0 - true / total, 0.0, 1.0))
    n_participants = min(len(synthetic), len(real))
    return Estimate(value, *interval(value, samples, n_participants), ceiling, floor)


def _drawn(comparison: Comparison, above: _Maps, below: _Maps, purpose: str) -> Drawn:
    return comparison.draws_of(len(above), len(below), purpose, _N_BOOTSTRAP)


def _ratios(above: Pairs, below: Pairs, counts: Drawn) -> np.ndarray:
    """Divide variances between participants in bootstrap samples."""
    own, others = (
        between_variance(pairs, drawn)[0]
        for pairs, drawn in zip((above, below), counts, strict=True)
    )
    several = np.min([(drawn > 0).sum(axis=1) for drawn in counts], axis=0) > 1
    usable = several & (others > 0)
    ratios: np.ndarray = own[usable] / others[usable]
    return ratios


def _true_ratio(
    comparison: Comparison, synthetic: _Maps, real: _Maps, training: _Maps | None
) -> Estimate:
    """Synthetic over real variance between participants, with its interval and ceiling.

    NaN where the real participants themselves do not differ beyond noise:
    there is nothing to reach then. The floor is no difference at all.
    """
    true = _variance(real.halves())
    reference = training if training is not None and training.table.has_halves else None
    if not true > 0 or not _differ(real, reference):
        return Estimate(NAN)
    value = _variance(synthetic.halves()) / true
    counts = _drawn(comparison, synthetic, real, "bootstrap of variance")
    samples = _ratios(synthetic.halves(), real.halves(), counts)
    ceiling = _variance(reference.halves()) / true if reference is not None else NAN
    n_participants = min(len(synthetic), len(real))
    return Estimate(value, *interval(value, samples, n_participants), ceiling, 0.0)


FAMILY = Family(
    "individuals",
    "Are a participant's synthetic maps its own, and do participants differ as real ones do?",
    METRICS,
    compare,
    compare_real,
)
