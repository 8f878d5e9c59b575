"""Compare what a stationary Gaussian process lacks: tails, levels, coupling that changes.

Legend: P participants, K trial types, N parcels, D entries of a modulation, F measures of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from fmrisynth.evaluation.cohort.halves import split_halves
from fmrisynth.evaluation.measures.correlation import map_correlation
from fmrisynth.evaluation.measures.features import dynamic_connectivity
from fmrisynth.evaluation.measures.modulations import Modulations, measure_modulations
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    finite_mean,
    interval,
    matched_draws,
)
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import CORRELATION, PROPORTION, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import (
    little_above_ceiling,
    near_one,
    share_where_runs_agree,
)
from fmrisynth.evaluation.metrics.run_measures import RunMeasures, compare_runs
from fmrisynth.evaluation.metrics.uses import CONNECTIVITY, TIME_SERIES
from fmrisynth.evaluation.runs.records import TISSUES, RunRecord

__all__ = ["FAMILY", "METRICS", "compare", "compare_real"]

_N_BOOTSTRAP = 100
_N_DRAWS = 20
_NAMES = ("kurtosis", "frame_peak", "level_sd", "dynamic_fc")
_FLOORS = {"kurtosis": 3.0, "level_sd": 0.0, "dynamic_fc": 0.0}
_OVER_HELD_OUT = "the same of real training runs, over held-out"
_MATCHED = "the same between as many real training and real held-out participants"
_SHARED_TASK = "a task that synthetic and real runs share"


def _ratio(
    name: str, label: str, what: str, floor: str, tolerance: float | None = None
) -> tuple[Metric, Metric]:
    rule = None
    if tolerance is not None:
        rule = Rule(f"within {tolerance:.0%} of 1".replace("%", " %"), near_one(tolerance),
                    _SHARED_TASK)  # fmt: skip
    return (
        Metric(
            f"{name}_ratio",
            section="realism",
            label=f"{label}, synthetic / real",
            what=f"{what}, synthetic / real",
            ceiling=_OVER_HELD_OUT,
            floor=floor,
            rule=rule,
            use=TIME_SERIES if rule is not None else None,
        ),
        Metric(
            name,
            section="realism",
            label=label,
            what=what,
            ceiling="the same of real training runs",
            floor=floor,
            absolute=True,
        ),
    )


METRICS = (
    *_ratio("kurtosis", "Kurtosis", "kurtosis over time, geometric mean of the voxels",
            "3, a Gaussian", 0.1),
    *_ratio("frame_peak", "Strongest volume", "energy of the strongest volume over the median one",
            "none: too much and too little are both wrong"),
    *_ratio("level_sd", "Changes of level", "standard deviation over windows of 20 s of the mean "
            "log standard deviation of the voxels", "0, a level that never changes", 0.5),
    *_ratio("dynamic_fc", "Changes of connectivity", "standard deviation of the connectivity over "
            "windows of 40 s, mean of pairs of parcels", "0, coupling that never changes", 0.15),
    Metric(
        "event_variance",
        section="realism",
        bounds=CORRELATION,
        label="Variance that changes with events",
        what="correlation over parcels of how the variance changes with each trial type, with the "
        "real one",
        ceiling=_MATCHED,
        floor="parcels shuffled",
    ),
    Metric(
        "coupling_correlation",
        section="realism",
        bounds=CORRELATION,
        label="Coupling that changes with events",
        what="correlation over pairs of parcels of the psychophysiological interaction with each "
        "trial type, with the real one",
        ceiling=_MATCHED,
        floor="parcels shuffled",
        rule=Rule(
            "at least 0.5 of its ceiling, where the interval can tell",
            share_where_runs_agree(0.5),
            "trial types, and a brain of at least 8 supervoxels of 12 mm",
        ),
        use=CONNECTIVITY,
    ),
    Metric(
        "power_distance",
        section="realism",
        bounds=PROPORTION,
        label="Difference of the power spectra",
        what="half the summed difference of the shares of the power in 24 slices of the band",
        ceiling=_MATCHED,
        floor="white noise",
        rule=Rule("at most 0.05 above its ceiling", little_above_ceiling(0.05), _SHARED_TASK),
        use=TIME_SERIES,
        parts="Difference of the power spectra by tissue",
    ),
)  # fmt: skip
"""What this family computes."""


def compare(comparison: Comparison) -> Estimates:
    """Compare a generator with the real runs.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data.

    Returns
    -------
    dict
        Ratios and absolute values of the measures of single runs,
        ``event_variance``, ``coupling_correlation`` and ``power_distance``.
    """
    return _compare(comparison, comparison.runs, comparison.real_runs)


def compare_real(comparison: Comparison) -> Estimates:
    """Compare one half of the real runs with the other.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`; empty where no participant has two runs of a task.
    """
    return _compare(comparison, *split_halves(comparison.real_runs))


def _compare(
    comparison: Comparison, synthetic: Sequence[RunRecord], real: Sequence[RunRecord]
) -> Estimates:
    if not synthetic or not real:
        return {}
    training = comparison.training_runs
    measures = RunMeasures(_NAMES, partial(_measure_run, comparison), _FLOORS, _NAMES)
    rng = comparison.random("bootstrap")
    paired = not comparison.unpaired
    estimates = compare_runs(measures, synthetic, real, training, rng, paired=paired)
    return estimates | _spectra(comparison, synthetic, real) | _modulations(
        comparison, synthetic, real
    )  # fmt: skip


def _measure_run(comparison: Comparison, record: RunRecord) -> np.ndarray:
    """Measure one run, in the order of `_NAMES`."""
    keys, labels = comparison.cohort.keys, comparison.measurements.compact
    dynamic = comparison.once(
        f"connectivity in {record.path}",
        lambda: dynamic_connectivity(record, keys, labels) if len(labels) else NAN,
    )
    kurtosis = float(np.exp(record.log_kurtosis))
    return np.array([kurtosis, record.frame_peak, record.level_sd, dynamic])


def _spectra(
    comparison: Comparison, synthetic: Sequence[RunRecord], real: Sequence[RunRecord]
) -> Estimates:
    """Compare mean spectra of participants, of the whole brain and of each tissue."""
    found = {}
    for tissue in (None, *range(len(TISSUES))):
        name = "power_distance" if tissue is None else f"power_distance[{TISSUES[tissue]}]"
        sides = [_mean_spectra(runs, tissue) for runs in (synthetic, real)]
        rows = comparison.shared_rows(*sides)
        if rows is not None and all(np.isfinite(row).all() for row in rows):
            training = np.array(list(_mean_spectra(comparison.training_runs, tissue).values()))
            own, other = (np.array(row) for row in rows)
            found[name] = _spectral_distance(comparison, own, other, training)
    return found


def _spectral_distance(
    comparison: Comparison, own: np.ndarray, other: np.ndarray, training: np.ndarray
) -> Estimate:
    """Compare spectra (P, F); the ceiling is that of as many training participants."""
    value = _distance(own.mean(axis=0), other.mean(axis=0))
    counts = comparison.draws_of(len(own), len(other), "bootstrap of spectra")
    samples = np.array(
        [_distance(a @ own / a.sum(), b @ other / b.sum()) for a, b in zip(*counts, strict=True)]
    )
    draws = matched_draws(len(other), len(training), comparison.shared_random("spectra"), _N_DRAWS)
    ceiling = finite_mean(
        [_distance(training[b].mean(axis=0), other[a].mean(axis=0)) for a, b in draws]
    )
    white = np.full(own.shape[1], 1.0 / own.shape[1])
    floor = _distance(white, other.mean(axis=0))
    limits = interval(value, samples, min(len(own), len(other)), (0.0, 1.0))
    return Estimate(value, *limits, ceiling, floor)


def _mean_spectra(runs: Sequence[RunRecord], tissue: int | None) -> dict[str, np.ndarray]:
    """Average the spectra of the runs of each participant, of a tissue or of the whole brain."""
    spectra: dict[str, list[np.ndarray]] = {}
    for record in runs:
        own = record.spectrum if tissue is None else record.tissue_spectra[tissue]
        spectra.setdefault(record.run.participant, []).append(own)
    return {name: np.mean(rows, axis=0) for name, rows in spectra.items()}


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).sum() / 2)


def _modulations(
    comparison: Comparison, synthetic: Sequence[RunRecord], real: Sequence[RunRecord]
) -> Estimates:
    """Compare how variance and coupling of parcels change with the trial types."""
    if not len(comparison.measurements.compact):
        return {}
    own = _measured(comparison, synthetic)
    other = comparison.once("modulations of real runs", partial(_measured, comparison, real))
    rows = comparison.shared_rows(own.places, other.places)
    if rows is None:
        return {}
    training = comparison.once(
        "modulations of training runs", partial(_measured, comparison, comparison.training_runs)
    )
    first, second, everybody = *rows, range(len(training.rows))
    counts = comparison.draws_of(len(first), len(second), "bootstrap of modulation", _N_BOOTSTRAP)
    rng = comparison.shared_random("modulation")
    draws = matched_draws(len(second), len(everybody), rng, _N_DRAWS)
    matched = [_chosen([draw[side] for draw in draws], size)
               for side, size in enumerate((len(second), len(everybody)))]  # fmt: skip
    means = own.means(first, np.concatenate([np.ones((1, len(first))), counts[0]]))
    reals = other.means(second, np.concatenate([np.ones((1, len(second))), counts[1], matched[0]]))
    trained = training.means(everybody, matched[1])
    n = int(comparison.measurements.compact.max()) + 1
    diagonal = np.equal(*np.triu_indices(n))
    kinds = {"event_variance": diagonal, "coupling_correlation": ~diagonal}
    orders = [_reordered(n, comparison.random(f"floor {k}")) for k in range(_N_DRAWS)]
    estimates = {}
    for name, kind in kinds.items():
        a, b, c = (side[..., kind] for side in (means, reals, trained))
        value, *samples = (_agreement(x, y) for x, y in zip(a, b[: len(a)], strict=True))
        ceiling = finite_mean([_agreement(x, y) for x, y in zip(c, b[len(a) :], strict=True)])
        floor = finite_mean([_agreement(means[0][:, order][:, kind], b[0]) for order in orders])
        limits = interval(value, np.array(samples), min(len(first), len(second)), (-1.0, 1.0))
        estimates[name] = Estimate(value, *limits, ceiling, floor)
    return estimates


def _measured(comparison: Comparison, runs: Sequence[RunRecord]) -> Modulations:
    """Measure the modulations of runs."""
    cohort, labels = comparison.cohort, comparison.measurements.compact
    pairs = cohort.conditions.trial_types
    return measure_modulations(runs, pairs, cohort.keys, labels, cohort.folder)


def _chosen(draws: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Give those who are drawn a weight of 1: (draws, P)."""
    weights = np.zeros((len(draws), size))
    for row, drawn in zip(weights, draws, strict=True):
        row[drawn] = 1.0
    return weights


def _reordered(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw another order of n parcels, and return where each pair of them (D,) goes."""
    i, j = np.triu_indices(n)
    place = np.zeros((n, n), dtype=int)
    place[i, j] = place[j, i] = np.arange(len(i))
    order = rng.permutation(n)
    return place[order[i], order[j]]


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Correlate means over participants (K, D), and average over trial types."""
    return finite_mean(map_correlation(first.astype(np.float64), second.astype(np.float64)))


FAMILY = Family(
    "realism",
    "Has the noise tails, changes of level and of coupling as real noise has?",
    METRICS,
    compare,
    compare_real,
)
