"""Compare when responses peak and how they return, on the mean time courses.

Legend: P participants, S samples of the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.correlation import cross_correlation
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    bootstrap_counts,
    finite_mean,
    interval,
    matched_draws,
)
from fmrisynth.evaluation.measures.timecourses import TimeCourse
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.measurements import HALVES
from fmrisynth.evaluation.metrics.metric import CORRELATION, POSITIVE, Family, Metric, Rule
from fmrisynth.evaluation.metrics.rules import share_of_ceiling
from fmrisynth.evaluation.metrics.uses import TIME_SERIES

__all__ = [
    "FAMILY",
    "METRICS",
    "compare",
    "compare_real",
    "course_agreement",
    "mean_course",
    "peak_latency",
    "undershoot",
]

METRICS = (
    Metric(
        "course_correlation",
        section="courses",
        bounds=CORRELATION,
        label="Responses in time (courses)",
        what="correlation of the mean course around a condition's epochs with the real one",
        ceiling="the same between as many real training and real held-out participants",
        floor="every other condition's course",
        rule=Rule(
            "at least 0.9 of its ceiling, where the interval can tell",
            share_of_ceiling(0.9, noisy=True),
            "epochs of a condition within the runs",
        ),
        use=TIME_SERIES,
    ),
    Metric(
        "course_canonical",
        section="courses",
        bounds=CORRELATION,
        label="Likeness to the canonical response",
        what="correlation of the mean course with the canonical response to the events",
        ceiling="the same of the real held-out runs",
        floor="every other condition's course",
    ),
    Metric(
        "peak_latency_error",
        section="courses",
        bounds=POSITIVE,
        label="Error of the time of the peak, s",
        what="|synthetic − real| time of the peak, s",
        ceiling="that of training participants",
        floor="every other condition's",
    ),
    Metric(
        "undershoot_error",
        section="courses",
        bounds=POSITIVE,
        label="Error of the undershoot",
        what="|synthetic − real| depth after the response over its peak",
        ceiling="that of training participants",
        floor="every other condition's",
    ),
    Metric(
        "peak_latency",
        section="courses",
        label="Time of the peak, s",
        what="time of the peak, s",
        ceiling="the real held-out one",
        floor="none: a time, which has no worst",
        parts="Peak latency by condition",
    ),
    Metric(
        "undershoot",
        section="courses",
        label="Undershoot",
        what="depth after the response over its peak",
        ceiling="the real held-out one",
        floor="none: any depth may be a response's",
        parts="Undershoot by condition",
    ),
)
"""What this family computes."""

Counts = np.ndarray | None
Measure = Callable[[np.ndarray, np.ndarray, float], float]
Agreement = Callable[[TimeCourse, TimeCourse, str, Counts], float]
"""(course of the source, course of the real data, source, bootstrap counts) → agreement."""

_N_BOOTSTRAP = 200
_N_DRAWS = 20


def peak_latency(times: np.ndarray, course: np.ndarray, duration: float) -> float:
    """Time of the largest response, between samples by a parabola.

    Parameters
    ----------
    times : ndarray of shape (S,)
        Time from onset, in s, evenly spaced.
    course : ndarray of shape (S,)
        Mean response.
    duration : float
        Duration of the epoch, in s; the peak is looked for until 10 s after it.

    Returns
    -------
    float
        In s from onset; NaN where nothing rises.
    """
    window = np.flatnonzero((times >= 1.0) & (times <= duration + 10.0) & np.isfinite(course))
    if window.size < 3:
        return NAN
    peak = int(window[np.argmax(course[window])])
    if not course[peak] > 0:
        return NAN
    if peak in (window[0], window[-1]):
        return float(times[peak])
    before, at, after = course[peak - 1 : peak + 2]
    bend = before - 2.0 * at + after
    shift = 0.5 * (before - after) / bend if np.isfinite(bend) and bend < 0 else 0.0
    return float(times[peak] + shift * (times[1] - times[0]))


def undershoot(times: np.ndarray, course: np.ndarray, duration: float) -> float:
    """Depth of the course after the response, relative to its peak.

    Parameters
    ----------
    times, course, duration
        As for `peak_latency`.

    Returns
    -------
    float
        Smallest value from 6 s after the epoch on over the largest; negative
        below the baseline; NaN where nothing rises or the course ends earlier.
    """
    after = (times >= duration + 6.0) & np.isfinite(course)
    during = (times >= 0.0) & (times <= duration + 10.0) & np.isfinite(course)
    if not after.any() or not during.any() or not course[during].max() > 0:
        return NAN
    return float(course[after].min() / course[during].max())


def course_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Correlate two mean courses over the samples that both have; NaN below four of them."""
    n = min(len(first), len(second))
    first, second = first[:n], second[:n]
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < 4:
        return NAN
    return float(cross_correlation(first[None, both], second[None, both])[0, 0])


def compare(comparison: Comparison) -> Estimates:
    """Compare the timing of a generator's responses with that of the real ones.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data.

    Returns
    -------
    dict
        ``course_correlation`` (mean course with the real one) and
        ``course_canonical`` (with what the canonical response predicts from
        the real effects), means over conditions; ``peak_latency_error`` (s) and
        ``undershoot_error``, means of |source − real|; and ``peak_latency[…]``
        (s) and ``undershoot[…]`` of each condition, with the real one as ceiling. The
        ceilings of the means are those of training data; their floor takes
        the course of every other condition.
    """
    return _compare(comparison, comparison.source, REAL)


def compare_real(comparison: Comparison) -> Estimates:
    """Compare the timing of responses in one half of the real runs with that in the other.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves.

    Returns
    -------
    dict
        As `compare`.
    """
    return _compare(comparison, *HALVES)


def _compare(comparison: Comparison, source: str, real: str) -> Estimates:
    courses = comparison.measurements.courses
    usable = [c for c in courses if len(c.curves.get(source, ())) and len(c.curves.get(real, ()))]
    if not usable:
        return {}
    counts = _counts(usable, (source, real), comparison.random("bootstrap"))
    measures: dict[str, tuple[Agreement, tuple[float, float]]] = {
        "course_correlation": (_same_course(real), (-1.0, 1.0)),
        "course_canonical": (_canonical, (-1.0, 1.0)),
        "peak_latency_error": (_error(peak_latency, real), (0.0, np.inf)),
        "undershoot_error": (_error(undershoot, real), (0.0, np.inf)),
    }
    rng = comparison.shared_random("ceiling")
    matched = [pair for course in usable for pair in _matched(course, real, rng)]
    estimates = {}
    for name, (agree, bounds) in measures.items():
        value = finite_mean([agree(c, c, source, None) for c in usable])
        samples = [finite_mean([agree(c, c, source, n) for c in usable]) for n in counts]
        # Beside the canonical response, the held-out data themselves are what to reach.
        best, pairs = (real, usable) if name == "course_canonical" else (TRAINING, matched)
        estimates[name] = Estimate(
            value,
            *interval(value, np.array(samples), counts.shape[1], bounds),
            finite_mean([agree(c, c, best, None) for c in pairs if best in c.curves]),
            finite_mean(
                [agree(other, c, source, None) for c in usable for other in usable if other != c]
            ),
        )
    for course in usable:
        for name, measure in (("peak_latency", peak_latency), ("undershoot", undershoot)):
            value = _measured(course, source, measure)
            samples = [_measured(course, source, measure, n) for n in counts]
            estimates[f"{name}[{course.condition}]"] = Estimate(
                value,
                *interval(value, np.array(samples), counts.shape[1]),
                _measured(course, real, measure),
            )
    return estimates


def _counts(
    courses: Sequence[TimeCourse], sources: Sequence[str], rng: np.random.Generator
) -> np.ndarray:
    """Draw bootstrap samples; none where courses rest on different numbers of participants."""
    sizes = {len(course.curves[source]) for course in courses for source in sources}
    return bootstrap_counts(sizes.pop() if len(sizes) == 1 else 0, rng, _N_BOOTSTRAP)


def _matched(course: TimeCourse, real: str, rng: np.random.Generator) -> list[TimeCourse]:
    """Draw as many training as real participants of a course, several times."""
    own, training = course.curves[real], course.curves.get(TRAINING, ())
    return [
        replace(course, curves={real: own[rows], TRAINING: np.asarray(training)[training_rows]})
        for rows, training_rows in matched_draws(len(own), len(training), rng, _N_DRAWS)
    ]


def _same_course(real: str) -> Agreement:
    def agree(own: TimeCourse, other: TimeCourse, source: str, counts: Counts) -> float:
        course = mean_course(own.curves[source], counts)
        return course_agreement(course, mean_course(other.curves[real], counts))

    return agree


def _canonical(own: TimeCourse, other: TimeCourse, source: str, counts: Counts) -> float:
    return course_agreement(mean_course(own.curves[source], counts), other.prediction)


def _error(measure: Measure, real: str) -> Agreement:
    def agree(own: TimeCourse, other: TimeCourse, source: str, counts: Counts) -> float:
        measured = _measured(own, source, measure, counts)
        return abs(measured - _measured(other, real, measure, counts))

    return agree


def mean_course(rows: np.ndarray, counts: Counts = None) -> np.ndarray:
    """Average participants' courses (P, S), counted as often as drawn, over finite samples."""
    weights = np.ones(len(rows)) if counts is None else counts
    finite = np.isfinite(rows) * weights[:, None]
    count = finite.sum(axis=0)
    total = (np.nan_to_num(rows) * weights[:, None]).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _measured(course: TimeCourse, source: str, measure: Measure, counts: Counts = None) -> float:
    rows = course.curves[source]
    return measure(course.times, mean_course(rows, counts), course.duration)


FAMILY = Family(
    "timing",
    "Do responses rise, peak and fall as real ones do?",
    METRICS,
    compare,
    compare_real,
)
