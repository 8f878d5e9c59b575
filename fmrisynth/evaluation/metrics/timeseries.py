"""Compare runs without mean and drift: noise level, autocorrelation, smoothness, spectrum.

Legend: F measures of one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fmrisynth.bids.synthetic_sidecars import NOISE_LEVEL_KEY, OWN_RUN, PROVENANCE_KEY
from fmrisynth.evaluation.cohort.halves import split_halves
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimates
from fmrisynth.evaluation.metrics.metric import POSITIVE, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import near_one
from fmrisynth.evaluation.metrics.run_measures import RunMeasures, compare_runs
from fmrisynth.evaluation.metrics.uses import TIME_SERIES
from fmrisynth.evaluation.runs.noise import N_LAGS, band_quarters
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["FAMILY", "METRICS", "NAMES", "compare", "compare_real", "given_level"]

_LAGS = tuple(f"lag{lag}" for lag in range(1, N_LAGS + 1))
_QUARTERS = ("power_q1", "power_q2", "power_q3", "power_q4")
NAMES = ("temporal_sd", "tsnr", *_LAGS, "fwhm", *_QUARTERS)
"""Names of the F measures of one run."""

_WITH_RATIO = ("temporal_sd", "tsnr", "lag1", "fwhm")
_WITH_SPREAD = ("temporal_sd", "lag1", "fwhm")

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
            f"{name}_spread_ratio",
            section="noise",
            bounds=POSITIVE,
            label=f"{label}, spread over participants, synthetic / real",
            what=f"standard deviation over participants of {name}, synthetic / real",
            ceiling="training participants / held-out participants",
            floor="0, all participants alike",
        )
        for name, label in zip(
            _WITH_SPREAD, ("Temporal SD", "Lag-1 autocorrelation", "Smoothness"), strict=True
        )
    ),
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


MEASURES = RunMeasures(NAMES, measure_run, _WHITE, _WITH_RATIO, _WITH_SPREAD)
"""What is measured of each run."""


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
        Name as in `NAMES` → Estimate; ``<name>_ratio`` is synthetic / real, and
        ``<name>_spread_ratio`` the same of the standard deviation over participants.
    """
    estimates = compare_runs(
        MEASURES,
        comparison.runs,
        comparison.real_runs,
        comparison.training_runs,
        comparison.random("bootstrap"),
        paired=not comparison.unpaired,
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
    return name.removesuffix("_ratio").removesuffix("_spread") in ("temporal_sd", "tsnr")


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
    whole = compare_runs(MEASURES, runs, runs, training, comparison.random("bootstrap"))
    rng = comparison.random("bootstrap of halves")
    halves = compare_runs(MEASURES, *split_halves(runs), training, rng)
    return {name: e for name, e in whole.items() if not name.endswith("_ratio")} | {
        name: e for name, e in halves.items() if name.endswith("_ratio")
    }


FAMILY = Family(
    "time series",
    "Is what is left of a run without mean and drift as strong, as slow and as smooth?",
    METRICS,
    compare,
    compare_real,
)
