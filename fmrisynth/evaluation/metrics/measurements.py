"""Measure once what several metrics and the report need of all sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from fmrisynth.evaluation.cohort.cohort import Cohort
from fmrisynth.evaluation.cohort.halves import split_halves
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.cohort.supervoxels import whole_series
from fmrisynth.evaluation.measures.classifier import FeatureTable
from fmrisynth.evaluation.measures.copying import (
    CopyAudit,
    RealPairs,
    audit_copying,
    compare_real_pairs,
)
from fmrisynth.evaluation.measures.features import (
    compact_parcels,
    parcel_series,
    run_features,
)
from fmrisynth.evaluation.measures.networks import Networks, networks_of, parcels
from fmrisynth.evaluation.measures.timecourses import TimeCourse, parcel_of, region_of, time_course
from fmrisynth.evaluation.measures.window_classifier import WindowTable
from fmrisynth.evaluation.runs.atlas import Atlas
from fmrisynth.evaluation.runs.records import RunRecord
from fmrisynth.runtime.randomness import keyed_generator
from fmrisynth.runtime.workers import Map

__all__ = ["HALVES", "Measurements", "measure", "without_halves"]

HALVES = ("real, first half of the runs", "real, second half of the runs")
"""Names under which time courses hold the halves of the real runs."""


@dataclass(frozen=True)
class Measurements:
    """Measurements of all sources.

    Attributes
    ----------
    courses : tuple of TimeCourse
        One for each condition, with `HALVES` among the sources.
    networks : mapping
        Source → Networks; empty with too few supervoxels.
    half_networks : tuple of Networks or None
        Of `HALVES`; None where no participant has two runs of a task.
    real_pairs : RealPairs
        Likeness of real runs of different participants; empty without training participants.
    audits : mapping
        Generator → CopyAudit; empty without training participants.
    compact : ndarray of int of shape (B,)
        Compact parcel of each supervoxel; empty with too few of them.
    features : mapping
        Source → features of its runs, by which a classifier may tell them; of
        as many training as held-out participants. Empty with too few supervoxels.
    windows : mapping
        Source → series of the same runs, which a classifier may look at by windows.
    """

    courses: tuple[TimeCourse, ...]
    networks: Mapping[str, Networks]
    half_networks: tuple[Networks, Networks] | None
    real_pairs: RealPairs
    audits: Mapping[str, CopyAudit]
    compact: np.ndarray
    features: Mapping[str, FeatureTable]
    windows: Mapping[str, WindowTable]


def measure(
    cohort: Cohort,
    maps: Mapping[str, np.ndarray],
    by_type: Mapping[str, np.ndarray],
    atlas: Atlas | None,
    seed: int,
    each: Map = map,
) -> Measurements:
    """Measure all sources.

    Parameters
    ----------
    cohort : Cohort
        The sources.
    maps, by_type : mapping
        Source → group maps of the conditions, (C, V), and of the trial types, (K, V).
    atlas : Atlas or None
        Regions of the time courses.
    seed : int
        The user's seed; draws the training participants of the copying audits.
    each : Map
        Measures the sources.

    Returns
    -------
    Measurements
    """
    runs = {name: records for name, records in cohort.runs.items() if records}
    runs |= zip(HALVES, split_halves(cohort.runs[REAL]), strict=True)
    known = cohort.runs[REAL], cohort.runs[TRAINING]
    pairs = compare_real_pairs(*known, cohort.keys) if cohort.training is not None else {}
    shared = _Shared(*known, cohort.keys, pairs, seed, cohort.folder)
    told_by: Mapping[str, Sequence[RunRecord]] = {}
    if len(cohort.keys) >= 8:  # fewer supervoxels than that make no parcels worth the name
        shared = replace(
            shared,
            labels=parcels(known[1] or known[0], cohort.keys),
            compact=compact_parcels(cohort.keys),
        )
        told_by = _told_by(cohort, seed)
    audited = cohort.generators if cohort.training is not None else ()
    first_with = cohort.first_with_these_runs | {name: name for name in HALVES}
    sources = {
        name: _Source(
            runs[name], told_by.get(name, ()), name in audited, cohort.folder / f"told-{number}"
        )
        for number, name in enumerate(dict.fromkeys(first_with[name] for name in runs))
    }
    measuring = each(partial(_measure_source, shared=shared), sources.values())
    courses = _time_courses(cohort, maps, by_type, atlas)  # other processes measure meanwhile
    measured = dict(zip(sources, measuring, strict=True))
    found = {name: measured[first_with[name]] for name in runs}
    halves = [found[name].networks for name in HALVES]
    return Measurements(
        courses=courses,
        networks={n: own.networks for n, own in found.items() if own.networks and n not in HALVES},
        half_networks=(halves[0], halves[1]) if halves[0] and halves[1] else None,
        real_pairs=pairs,
        audits={name: own.audit for name, own in found.items() if own.audit},
        compact=shared.compact,
        features={name: own.features for name, own in found.items() if own.features},
        windows={name: own.windows for name, own in found.items() if own.windows},
    )


@dataclass(frozen=True)
class _Shared:
    """Hold what is the same for all sources that are measured."""

    held_out: Sequence[RunRecord]
    training: Sequence[RunRecord]
    keys: np.ndarray
    real_pairs: RealPairs
    seed: int
    folder: Path
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    compact: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))


@dataclass(frozen=True)
class _Source:
    """Hold the runs of a source, those that classifiers see, and whether copies are looked for.

    What classifiers see of them goes into files whose names begin with `path`.
    """

    runs: Sequence[RunRecord]
    told_by: Sequence[RunRecord]
    audited: bool
    path: Path


@dataclass(frozen=True)
class _Measured:
    """Hold what is measured of one source, None where it is not."""

    networks: Networks | None = None
    audit: CopyAudit | None = None
    features: FeatureTable | None = None
    windows: WindowTable | None = None


def _measure_source(source: _Source, *, shared: _Shared) -> _Measured:
    """Measure one source by itself."""
    keys, told_by = shared.keys, source.told_by
    with threadpool_limits(1):
        return _Measured(
            networks_of(source.runs, keys, shared.labels, shared.folder)
            if source.runs and len(shared.labels)
            else None,
            audit_copying(
                source.runs, shared.held_out, shared.training, keys, shared.real_pairs,
                keyed_generator(shared.seed, "copying", "training participants"),
            )
            if source.audited
            else None,
            _features(told_by, keys, shared.compact).stored(source.path.with_suffix(".features"))
            if told_by
            else None,
            _windows(told_by, keys, shared.compact).stored(source.path.with_suffix(".windows"))
            if told_by
            else None,
        )  # fmt: skip


def _told_by(cohort: Cohort, seed: int) -> dict[str, list[RunRecord]]:
    """List all sources' runs that classifiers see: of no more training than held-out ones."""
    chosen_runs = {}
    for name, participants in cohort.participants.items():
        chosen = list(participants)
        if name == TRAINING:
            n_real = len(cohort.participants[REAL])
            order = keyed_generator(seed, "features", "training participants")
            chosen = [chosen[i] for i in order.permutation(len(chosen))[:n_real]]
        runs = [record for participant in chosen for record in participants[participant]]
        if runs:
            chosen_runs[name] = runs
    return chosen_runs


def _features(runs: Sequence[RunRecord], keys: np.ndarray, labels: np.ndarray) -> FeatureTable:
    """Measure the features of runs."""
    return FeatureTable.of(
        [run_features(record, keys, labels) for record in runs],
        [record.run.participant for record in runs],
    )


def _windows(runs: Sequence[RunRecord], keys: np.ndarray, labels: np.ndarray) -> WindowTable:
    """Read the series of runs in the compact parcels."""
    return WindowTable.of(
        [parcel_series(whole_series(record, keys), labels) for record in runs],
        [record.run.t_r for record in runs],
        [record.run.participant for record in runs],
    )


def without_halves(courses: Sequence[TimeCourse]) -> tuple[TimeCourse, ...]:
    """Leave out the courses that real data as their own generator alone need."""
    return tuple(
        replace(course, curves={k: v for k, v in course.curves.items() if k not in HALVES})
        for course in courses
    )


def _time_courses(
    cohort: Cohort,
    maps: Mapping[str, np.ndarray],
    by_type: Mapping[str, np.ndarray],
    atlas: Atlas | None,
) -> tuple[TimeCourse, ...]:
    """Measure each condition's response where real training data have it (else the real ones)."""
    courses = []
    conditions = cohort.conditions
    halves = dict(zip(HALVES, split_halves(cohort.runs[REAL]), strict=True))
    sources = {REAL: cohort.runs[REAL]} | dict(cohort.runs) | halves
    for c, name in enumerate(conditions.names):
        chooser = TRAINING if TRAINING in maps and np.isfinite(maps[TRAINING][c, 0]) else REAL
        effects = {
            pair: np.nan_to_num(by_type[chooser][k])
            for k, pair in enumerate(conditions.trial_types)
        }
        where = (maps[chooser][c], effects, cohort.mask, cohort.grid)
        region = parcel_of(*where, atlas) if atlas is not None else None
        course = time_course(name, conditions.members(c), region or region_of(*where), sources)
        if course is not None:
            courses.append(course)
    return tuple(courses)
