"""When responses peak and how they return: figures of the mean time courses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fmrisynth.evaluation.measures.correlation import cross_correlation
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    Figure,
    bootstrap_counts,
    finite_mean,
    interval,
)
from fmrisynth.evaluation.measures.timecourses import TimeCourse

__all__ = ["compare_timing", "course_agreement", "mean_course", "peak_latency", "undershoot"]

Counts = np.ndarray | None
Measure = Callable[[np.ndarray, np.ndarray, float], float]
Comparison = Callable[[TimeCourse, TimeCourse, str, Counts], float]
"""(course of the source, course of the real data, source, bootstrap counts) → figure."""

_N_BOOTSTRAP = 200


def peak_latency(times: np.ndarray, course: np.ndarray, duration: float) -> float:
    """Time of the largest response, between samples by a parabola.

    Parameters
    ----------
    times : ndarray, shape (S,)
        Time from onset, in s, evenly spaced.
    course : ndarray, shape (S,)
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


def compare_timing(
    courses: Sequence[TimeCourse], source: str, real: str, training: str, rng: np.random.Generator
) -> dict[str, Figure]:
    """Figures of the timing of a source beside the real ones.

    Parameters
    ----------
    courses : sequence of TimeCourse
        One for each condition.
    source, real, training : str
        Names of the generator, the real held-out and the real training data in the courses.
    rng : numpy.random.Generator
        Source of randomness.

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
    usable = [c for c in courses if len(c.curves.get(source, ())) and len(c.curves.get(real, ()))]
    if not usable:
        return {}
    counts = _counts(usable, (source, real), rng)
    measures: dict[str, tuple[Comparison, tuple[float, float]]] = {
        "course_correlation": (_same_course(real), (-1.0, 1.0)),
        "course_canonical": (_canonical, (-1.0, 1.0)),
        "peak_latency_error": (_error(peak_latency, real), (0.0, np.inf)),
        "undershoot_error": (_error(undershoot, real), (0.0, np.inf)),
    }
    figures = {}
    for name, (compare, bounds) in measures.items():
        value = finite_mean([compare(c, c, source, None) for c in usable])
        samples = [finite_mean([compare(c, c, source, n) for c in usable]) for n in counts]
        # Beside the canonical response, the held-out data themselves are what to reach.
        best = real if name == "course_canonical" else training
        figures[name] = Figure(
            value,
            *interval(value, np.array(samples), bounds),
            finite_mean([compare(c, c, best, None) for c in usable if best in c.curves]),
            finite_mean(
                [compare(other, c, source, None) for c in usable for other in usable if other != c]
            ),
        )
    for course in usable:
        for name, measure in (("peak_latency", peak_latency), ("undershoot", undershoot)):
            value = _measured(course, source, measure)
            samples = [_measured(course, source, measure, n) for n in counts]
            figures[f"{name}[{course.condition}]"] = Figure(
                value, *interval(value, np.array(samples)), _measured(course, real, measure)
            )
    return figures


def _counts(
    courses: Sequence[TimeCourse], sources: Sequence[str], rng: np.random.Generator
) -> np.ndarray:
    """Draw bootstrap samples; none where courses rest on different numbers of participants."""
    sizes = {len(course.curves[source]) for course in courses for source in sources}
    return bootstrap_counts(sizes.pop() if len(sizes) == 1 else 0, rng, _N_BOOTSTRAP)


def _same_course(real: str) -> Comparison:
    def compare(own: TimeCourse, other: TimeCourse, source: str, counts: Counts) -> float:
        made = mean_course(own.curves[source], counts)
        return course_agreement(made, mean_course(other.curves[real], counts))

    return compare


def _canonical(own: TimeCourse, other: TimeCourse, source: str, counts: Counts) -> float:
    return course_agreement(mean_course(own.curves[source], counts), other.prediction)


def _error(measure: Measure, real: str) -> Comparison:
    def compare(own: TimeCourse, other: TimeCourse, source: str, counts: Counts) -> float:
        made = _measured(own, source, measure, counts)
        return abs(made - _measured(other, real, measure, counts))

    return compare


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
