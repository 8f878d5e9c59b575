"""Average the course of a region around the epochs of a condition.

Legend: P participants, B supervoxels, T
volumes, S samples of the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.affines import apply_affine

from fmrisynth.bids.events import read_events
from fmrisynth.evaluation.runs.atlas import Atlas
from fmrisynth.evaluation.runs.grids import SUPERVOXEL_MM, Grid, labels_on
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = [
    "Region",
    "TimeCourse",
    "epochs",
    "mean_image",
    "parcel_of",
    "region_of",
    "time_course",
]

BEFORE, AFTER, LONGEST = 6.0, 20.0, 40.0
"""Seconds shown before an epoch and after it, and the longest epoch shown in full."""

_GAP = 6.0  # s; events closer than this are one epoch, their responses run together


@dataclass(frozen=True)
class Region:
    """Where a condition's real effect is largest: some supervoxels, or one parcel of an atlas.

    Attributes
    ----------
    keys : frozenset of tuple of int
        Places of the supervoxels on the coarse grid.
    effects : mapping
        (task, trial type) → mean effect in the region, percent signal change.
    parcel : int
        Label of the parcel, 0 where the region consists of supervoxels.
    name : str
        Name of the region, for the report.
    """

    keys: frozenset[tuple[int, int, int]]
    effects: Mapping[tuple[str, str], float]
    parcel: int = 0
    name: str = "strongest supervoxels"


@dataclass(frozen=True)
class TimeCourse:
    """Mean response of a region, participant by participant.

    Attributes
    ----------
    condition : str
        Name of the condition.
    times : ndarray of shape (S,)
        Time from the epoch's onset, in s.
    curves : mapping
        Source → ndarray of shape (P, S), percent signal change.
    prediction : ndarray of shape (S,)
        What the canonical response predicts for the real effect.
    duration : float
        Median duration of the epochs, in s.
    region : str
        Name of the region.
    """

    condition: str
    times: np.ndarray
    curves: Mapping[str, np.ndarray]
    prediction: np.ndarray
    duration: float
    region: str = "strongest supervoxels"


def region_of(
    effect: np.ndarray,
    effects: Mapping[tuple[str, str], np.ndarray],
    mask: np.ndarray,
    grid: Grid,
    share: float = 0.05,
) -> Region:
    """Find the supervoxels with the largest real effect of a condition.

    Parameters
    ----------
    effect : ndarray of shape (V,)
        Real group map of the condition (of training participants where there
        are any, so that the choice does not favour the held-out ones).
    effects : mapping
        (task, trial type) → group map, shape (V,).
    mask : ndarray of bool of shape (X, Y, Z)
        Common mask with ``V`` voxels.
    grid : Grid
        Grid of the mask.
    share : float
        Share of the brain's supervoxels that make up the region.

    Returns
    -------
    Region
    """
    world = apply_affine(grid.affine, np.argwhere(mask))
    places = np.floor(world / SUPERVOXEL_MM + 1e-6).astype(int)
    keys, index, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    index = index.ravel()
    means = np.bincount(index, weights=effect) / counts
    means[counts < 0.5 * counts.max()] = -np.inf
    top = np.argsort(means)[::-1][: max(1, round(share * np.isfinite(means).sum()))]
    inside = np.isin(index, top)
    return Region(
        frozenset((int(a), int(b), int(c)) for a, b, c in keys[top]),
        {name: float(values[inside].mean()) for name, values in effects.items()},
    )


def parcel_of(
    effect: np.ndarray,
    effects: Mapping[tuple[str, str], np.ndarray],
    mask: np.ndarray,
    grid: Grid,
    atlas: Atlas,
) -> Region | None:
    """Find the parcel of an atlas with the largest real effect of a condition.

    Parameters
    ----------
    effect, effects, mask, grid
        As for `region_of`.
    atlas : Atlas
        Its labels are brought to the grid by the nearest voxel.

    Returns
    -------
    Region or None
        None when no parcel has enough voxels in the mask.
    """
    volume = np.asarray(atlas.image.dataobj)
    own = labels_on(volume, atlas.image.affine, grid.affine, grid.shape)[mask]
    labels, index, counts = np.unique(own, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=effect) / counts
    # A parcel that only touches the mask would be chosen for its noise.
    usable = (labels > 0) & (counts >= max(5, 0.25 * np.median(counts)))
    if not usable.any():
        return None
    best = int(np.argmax(np.where(usable, means, -np.inf)))
    inside = index == best
    label = int(labels[best])
    return Region(
        frozenset(),
        {name: float(values[inside].mean()) for name, values in effects.items()},
        label,
        f"{atlas.labels.get(label, f'parcel {label}')} ({atlas.name})",
    )


def epochs(events: pd.DataFrame, trial_types: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Merge events that follow each other closely into epochs.

    Parameters
    ----------
    events : DataFrame
        Columns ``onset``, ``duration`` (s) and ``trial_type``, sorted by onset.
    trial_types : sequence of str
        Trial types that count.

    Returns
    -------
    onsets, durations : ndarray of shape (n_epochs,)
        In s.
    """
    chosen = events[events["trial_type"].isin(trial_types)].sort_values("onset")
    starts: list[float] = []
    stops: list[float] = []
    for onset, duration in zip(chosen["onset"], chosen["duration"], strict=True):
        if starts and onset - stops[-1] < _GAP:
            stops[-1] = max(stops[-1], onset + duration)
        else:
            starts.append(float(onset))
            stops.append(float(onset + duration))
    return np.array(starts), np.array(stops) - np.array(starts)


def time_course(
    condition: str,
    members: Sequence[tuple[str, str]],
    region: Region,
    sources: Mapping[str, Sequence[RunRecord]],
) -> TimeCourse | None:
    """Average a region's signal around the epochs of a condition.

    Parameters
    ----------
    condition : str
        Name of the condition.
    members : sequence of (str, str)
        Task and trial types of the condition.
    region : Region
        Where to look.
    sources : mapping
        Source → its runs; the first source is the real one and sets the epoch's length.

    Returns
    -------
    TimeCourse or None
        None when no run of the first source has an epoch.
    """
    tasks = {task for task, _ in members}
    trial_types = [trial_type for _, trial_type in members]
    runs = {
        source: [record for record in records if record.run.task in tasks]
        for source, records in sources.items()
    }
    first = next(iter(runs.values()))
    designs = {r.run.events: epochs(read_events(r.run.events), trial_types) for r in first}
    lengths = np.concatenate([d for _, d in designs.values()]) if designs else np.zeros(0)
    if lengths.size == 0:
        return None
    duration = float(np.median(lengths))
    times = np.arange(-BEFORE, min(duration, LONGEST) + AFTER + 0.5, 1.0)
    curves, predictions = {}, []
    for source, records in runs.items():
        participants: dict[str, list[np.ndarray]] = {}
        for record in records:
            onsets, _ = epochs(read_events(record.run.events), trial_types)
            course = _region_signal(record, region)
            if course is not None and len(onsets):
                participants.setdefault(record.run.participant, []).append(
                    _locked(course, onsets, record, times)
                )
            if source == next(iter(runs)) and len(onsets):
                predictions.append(_locked(_predicted(record, region), onsets, record, times))
        curves[source] = np.array([_nanmean(rows) for rows in participants.values()]).reshape(
            -1, len(times)
        )
    return TimeCourse(condition, times, curves, _nanmean(predictions), duration, region.name)


def mean_image(records: Sequence[RunRecord], grid: Grid) -> nib.Nifti1Image:
    """Average the runs' temporal means, each scaled to a median of 1, as background of maps."""
    total = np.zeros(grid.shape)
    count = np.zeros(grid.shape)
    for record in records:
        mask, mean = record.arrays("mask", "mean")
        total[mask] += mean / np.median(mean)
        count += mask
    return nib.Nifti1Image((total / np.maximum(count, 1)).astype(np.float32), grid.affine)


def _region_signal(record: RunRecord, region: Region) -> np.ndarray | None:
    """Mean over the region: (T,); None when the run does not cover it."""
    if region.parcel:
        parcels, series = record.arrays("parcels", "parcel_series")
        row = np.flatnonzero(parcels == region.parcel)
        return series[row[0]] if len(row) else None
    keys, series = record.arrays("supervoxel_keys", "supervoxel_series")
    inside = np.array([tuple(key) in region.keys for key in keys.tolist()])
    return series[inside].mean(axis=0) if inside.any() else None


def _predicted(record: RunRecord, region: Region) -> np.ndarray:
    """Predict the course from the real effects and the canonical response: (T,)."""
    weights = [region.effects.get((record.run.task, name), 0.0) for name in record.trial_types]
    return record.array("regressors") @ np.array(weights)


def _locked(
    course: np.ndarray, onsets: np.ndarray, record: RunRecord, times: np.ndarray
) -> np.ndarray:
    """Average a course around onsets, against the mean of the last 4 s before them: (S,)."""
    frames = record.run.start_time + record.run.t_r * np.arange(len(course))
    rows = np.array(
        [np.interp(onset + times, frames, course, left=np.nan, right=np.nan) for onset in onsets]
    )
    mean = _nanmean(rows)
    baseline = mean[(times >= -4.0) & (times <= 0.0)]
    baseline = baseline[np.isfinite(baseline)]
    return mean - baseline.mean() if len(baseline) else mean


def _nanmean(rows: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    stacked = np.asarray(rows)
    count = np.isfinite(stacked).sum(axis=0)
    return np.nansum(stacked, axis=0) / np.where(count > 0, count, np.nan)
