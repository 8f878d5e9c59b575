"""When responses peak and how they return: figures of the mean time courses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fmrisynth.evaluation.resampling import NAN, Figure, bootstrap_counts, interval
from fmrisynth.evaluation.timecourses import TimeCourse

__all__ = ["compare_timing", "peak_latency", "undershoot"]

Measure = Callable[[np.ndarray, np.ndarray, float], float]


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
        ``peak_latency_error`` (s) and ``undershoot_error``: mean over
        conditions of |source − real|, the ceiling being that of training data;
        ``peak_latency[<condition>]`` (s) with the real one as ceiling.
    """
    usable = [c for c in courses if len(c.curves.get(source, ())) and len(c.curves[real])]
    if not usable:
        return {}
    figures = {}
    for name, measure in (("peak_latency", peak_latency), ("undershoot", undershoot)):
        value = _error(usable, source, real, measure)
        samples = np.array([_error(usable, source, real, measure, c) for c in _counts(usable, rng)])
        figures[f"{name}_error"] = Figure(
            value, *interval(value, samples, (0.0, np.inf)), _error(usable, training, real, measure)
        )
    for course in usable:
        figures[f"peak_latency[{course.condition}]"] = Figure(
            _measured(course, source, peak_latency), ceiling=_measured(course, real, peak_latency)
        )
    return figures


def _counts(courses: Sequence[TimeCourse], rng: np.random.Generator) -> np.ndarray:
    sizes = {len(rows) for course in courses for rows in course.curves.values() if len(rows)}
    return bootstrap_counts(min(sizes), rng, 200)


def _error(
    courses: Sequence[TimeCourse],
    source: str,
    real: str,
    measure: Measure,
    counts: np.ndarray | None = None,
) -> float:
    errors = np.array(
        [
            _measured(course, source, measure, counts) - _measured(course, real, measure, counts)
            for course in courses
        ]
    )
    errors = np.abs(errors[np.isfinite(errors)])
    return float(errors.mean()) if len(errors) else NAN


def _measured(
    course: TimeCourse, source: str, measure: Measure, counts: np.ndarray | None = None
) -> float:
    rows = course.curves.get(source)
    if rows is None or not len(rows):
        return NAN
    if counts is not None and len(counts) == len(rows):
        rows = np.repeat(rows, counts, axis=0)
    finite = np.isfinite(rows)
    count = finite.sum(axis=0)
    mean = np.where(count > 0, np.nansum(rows, axis=0) / np.maximum(count, 1), np.nan)
    return measure(course.times, mean, course.duration)
