"""Compare runs without mean and drift: noise level, autocorrelation, smoothness, spectrum.

Legend: P participants, F measures of one run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from fmrisynth.bids.synthetic_sidecars import NOISE_LEVEL_KEY, OWN_RUN, PROVENANCE_KEY
from fmrisynth.evaluation.cohort.halves import split_halves
from fmrisynth.evaluation.measures.resampling import NAN, bootstrap_counts, interval
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import near_one
from fmrisynth.evaluation.metrics.uses import TIME_SERIES
from fmrisynth.evaluation.runs.noise import N_LAGS, band_quarters
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["FAMILY", "METRICS", "NAMES", "compare", "compare_real", "compare_runs", "given_level"]

_LAGS = tuple(f"lag{lag}" for lag in range(1, N_LAGS + 1))
_QUARTERS = ("power_q1", "power_q2", "power_q3", "power_q4")
NAMES = ("temporal_sd", "tsnr", *_LAGS, "fwhm", *_QUARTERS)
"""Names of the F measures of one run."""

_WITH_RATIO = ("temporal_sd", "tsnr", "lag1", "fwhm")

_WHITE = dict.fromkeys((*_LAGS, "fwhm"), 0.0) | dict.fromkeys(_QUARTERS, 0.25)
"""What noise that is white in time and space has: the floor of measures of autocorrelation."""

_TRAINING = "the same of real training runs"
_OVER_HELD_OUT = f"{_TRAINING}, over held-out"
_SIZE = (
    "none: too much and too little are both wrong, and neither has an end; a ratio of 1 is right"
)
_NEAR_ONE = Rule("within 10 % of 1", near_one(0.1), "a task that synthetic and real runs share")


def _ratio(name: str, label: str, what: str, floor: str, rule: Rule | None = None) -> Metric:
    return Metric(
        f"{name}_ratio",
        section="noise",
        label=f"{label}, synthetic / real",
        what=f"{what}, synthetic / real",
        ceiling=_OVER_HELD_OUT,
        floor=floor,
        rule=rule,
        use=TIME_SERIES if rule is not None else None,
    )


def _absolute(name: str, label: str, what: str, floor: str) -> Metric:
    return Metric(
        name, section="noise", label=label, what=what, ceiling=_TRAINING, floor=floor, absolute=True
    )


METRICS = (
    _ratio("temporal_sd", "Temporal SD", "temporal standard deviation", _SIZE, _NEAR_ONE),
    _ratio("tsnr", "tSNR", "temporal signal-to-noise ratio", _SIZE),
    _ratio(
        "lag1", "Lag-1 autocorrelation", "autocorrelation at lag 1", "0, white noise", _NEAR_ONE
    ),
    _ratio("fwhm", "Smoothness (FWHM)", "spatial smoothness", "0, white noise", _NEAR_ONE),
    *(
        Metric(
            name,
            section="noise",
            label=f"Power in quarter {quarter} of the band",
            what=f"share of the power in quarter {quarter} of the band",
            ceiling=_TRAINING,
            floor="0.25, white noise",
        )
        for quarter, name in enumerate(_QUARTERS, start=1)
    ),
    _absolute("temporal_sd", "Temporal SD, %", "temporal standard deviation, %", _SIZE),
    _absolute("tsnr", "tSNR", "temporal signal-to-noise ratio", _SIZE),
    _absolute("fwhm", "Smoothness (FWHM), mm", "spatial smoothness, mm", "0, white noise"),
    *(
        _absolute(
            name, f"Autocorrelation at lag {lag}", f"autocorrelation at lag {lag}", "0, white noise"
        )
        for lag, name in enumerate(_LAGS, start=1)
    ),
)
"""What this family computes."""

Cells = Mapping[tuple[str, str], np.ndarray]


def measure_run(record: RunRecord) -> np.ndarray:
    """Measure one run, in the order of `NAMES`.

    Parameters
    ----------
    record : RunRecord
        Summary of the run.

    Returns
    -------
    ndarray of shape (F,)
    """
    return np.array(
        [
            record.temporal_sd,
            record.tsnr,
            *record.autocorrelation,
            np.nanmean(record.fwhm),
            *band_quarters(record.spectrum),
        ]
    )


def compare(comparison: Comparison) -> Estimates:
    """Measure a generator's runs, and divide by the measures of the real runs.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data. Only participants and tasks that
        both have are compared.

    Returns
    -------
    dict
        Name as in `NAMES` → Estimate; ``<name>_ratio`` is synthetic / real.
    """
    estimates = compare_runs(
        comparison.runs,
        comparison.real_runs,
        comparison.training_runs,
        comparison.random("bootstrap"),
    )
    given = given_level(comparison.runs)
    return {
        name: replace(estimate, by_construction=given) if _is_level(name) else estimate
        for name, estimate in estimates.items()
    }


def given_level(runs: Sequence[RunRecord]) -> str:
    """Say of how many runs the noise level is that of the real run compared with; empty if none."""
    provenances = [record.run.metadata.get(PROVENANCE_KEY) for record in runs]
    own = sum(
        isinstance(provenance, Mapping) and provenance.get(NOISE_LEVEL_KEY) == OWN_RUN
        for provenance in provenances
    )
    if not own:
        return ""
    return (
        f"{own} of the {len(runs)} synthetic runs were given the noise level of the very run that "
        "they are compared with"
    )


def _is_level(name: str) -> bool:
    return name.removesuffix("_ratio") in ("temporal_sd", "tsnr")


def compare_real(comparison: Comparison) -> Estimates:
    """Measure the real held-out runs, and divide one half of them by the other.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`; the ratios are those of one half of each participant's
        runs of a task to the other.
    """
    runs, training = comparison.real_runs, comparison.training_runs
    whole = compare_runs(runs, runs, training, comparison.random("bootstrap"))
    halves = compare_runs(*split_halves(runs), training, comparison.random("bootstrap of halves"))
    return {name: e for name, e in whole.items() if not name.endswith("_ratio")} | {
        name: e for name, e in halves.items() if name.endswith("_ratio")
    }


def compare_runs(
    synthetic: Sequence[RunRecord],
    real: Sequence[RunRecord],
    training: Sequence[RunRecord],
    rng: np.random.Generator,
) -> Estimates:
    """Measure runs, and divide by the measures of the real runs.

    Parameters
    ----------
    synthetic, real : sequence of RunRecord
        Runs of the same participants. Only participants and tasks that both
        have are compared.
    training : sequence of RunRecord
        Real runs of training participants, for the ceiling.
    rng : numpy.random.Generator
        Random numbers of the bootstrap.

    Returns
    -------
    dict
        As `compare`.
    """
    cells, real_cells = _cells(synthetic), _cells(real)
    shared = [cell for cell in real_cells if cell in cells]
    if not shared:
        return {}
    participants = list(dict.fromkeys(participant for participant, _ in shared))
    values = _by_participant(cells, shared, participants)
    real_values = _by_participant(real_cells, shared, participants)
    reference = _by_task_mean(_cells(training), {task for _, task in shared})
    counts = bootstrap_counts(len(participants), rng)
    estimates = {}
    for f, name in enumerate(NAMES):
        value = float(np.nanmean(values[:, f]))
        samples = np.array([_weighted_mean(values[:, f], c) for c in counts])
        floor = _WHITE.get(name, NAN)
        limits = interval(value, samples, len(participants))
        estimates[name] = Estimate(value, *limits, float(reference[f]), floor)
        if name in _WITH_RATIO:
            base = float(np.nanmean(real_values[:, f]))
            drawn = np.array([_weighted_mean(real_values[:, f], c) for c in counts])
            ratio = float(_over(value, base))
            limits = interval(ratio, _over(samples, drawn), len(participants))
            ceiling, worst = _over(reference[f], base), _over(floor, base)
            estimates[f"{name}_ratio"] = Estimate(ratio, *limits, float(ceiling), float(worst))
    return estimates


def _over(above: ArrayLike, below: ArrayLike) -> np.ndarray:
    """Ratio, NaN over zero: runs without any smoothness have an FWHM of 0."""
    unit = np.where(np.equal(below, 0), NAN, below)
    return np.asarray(above) / unit


def _cells(records: Sequence[RunRecord]) -> dict[tuple[str, str], np.ndarray]:
    """Average the measures of the runs of each participant and task."""
    gathered = defaultdict(list)
    for record in records:
        gathered[record.run.participant, record.run.task].append(measure_run(record))
    return {cell: np.mean(values, axis=0) for cell, values in gathered.items()}


def _by_participant(
    cells: Cells, shared: Sequence[tuple[str, str]], participants: Sequence[str]
) -> np.ndarray:
    """Mean over the shared tasks of each participant: (P, F)."""
    return np.array(
        [
            np.mean([cells[c] for c in shared if c[0] == participant], axis=0)
            for participant in participants
        ]
    )


def _by_task_mean(cells: Cells, tasks: set[str]) -> np.ndarray:
    """Mean over participants and tasks, every task weighing the same: (F,)."""
    means = []
    for task in sorted(tasks):
        rows = [values for (_, name), values in cells.items() if name == task]
        if rows:
            means.append(np.mean(rows, axis=0))
    return np.mean(means, axis=0) if means else np.full(len(NAMES), NAN)


def _weighted_mean(values: np.ndarray, counts: np.ndarray) -> float:
    usable = np.isfinite(values)
    total = counts[usable].sum()
    return float(values[usable] @ counts[usable] / total) if total else NAN


FAMILY = Family(
    "time series",
    "Is what is left of a run without mean and drift as strong, as slow and as smooth?",
    METRICS,
    compare,
    compare_real,
)
