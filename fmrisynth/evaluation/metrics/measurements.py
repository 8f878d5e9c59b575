"""Measure once what several metrics and the report need of all sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fmrisynth.evaluation.cohort.cohort import Cohort
from fmrisynth.evaluation.cohort.halves import split_halves
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.cohort.supervoxels import whole_series
from fmrisynth.evaluation.measures.classifier import FeatureTable
from fmrisynth.evaluation.measures.copying import CopyAudit, audit_copying
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

    Returns
    -------
    Measurements
    """
    halves = split_halves(cohort.runs[REAL])
    compact = np.zeros(0, dtype=int)
    networks: dict[str, Networks] = {}
    half_networks = None
    if len(cohort.keys) >= 8:  # fewer supervoxels than that make no parcels worth the name
        compact = compact_parcels(cohort.keys)
        labels = parcels(cohort.runs[TRAINING] or cohort.runs[REAL], cohort.keys)
        for name, runs in cohort.runs.items():
            if runs:
                networks[name] = networks_of(runs, cohort.keys, labels)
        if halves[0]:
            first, second = (networks_of(runs, cohort.keys, labels) for runs in halves)
            half_networks = first, second
    told_by = _told_by(cohort, seed) if len(compact) else {}
    return Measurements(
        courses=_time_courses(cohort, maps, by_type, atlas),
        networks=networks,
        half_networks=half_networks,
        audits={
            name: audit_copying(
                cohort.runs[name],
                cohort.runs[REAL],
                cohort.runs[TRAINING],
                cohort.keys,
                keyed_generator(seed, "copying", "training participants"),
            )
            for name in cohort.generators
            if cohort.training is not None
        },
        compact=compact,
        features={name: _features(runs, cohort, compact) for name, runs in told_by.items()},
        windows={name: _windows(runs, cohort, compact) for name, runs in told_by.items()},
    )


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


def _features(runs: Sequence[RunRecord], cohort: Cohort, labels: np.ndarray) -> FeatureTable:
    """Measure the features of runs."""
    return FeatureTable.of(
        [run_features(record, cohort.keys, labels) for record in runs],
        [record.run.participant for record in runs],
    )


def _windows(runs: Sequence[RunRecord], cohort: Cohort, labels: np.ndarray) -> WindowTable:
    """Read the series of runs in the compact parcels."""
    return WindowTable.of(
        [parcel_series(whole_series(record, cohort.keys), labels) for record in runs],
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
