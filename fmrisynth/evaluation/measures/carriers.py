"""Measure how near mean images come to those of real participants.

Images are compared on supervoxels of 12 mm, relative to their median, so that neither a scanner's
units nor the sharpness of a grid has a say in it.

Legend: P, Q participants, B supervoxels, V voxels of the common mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from fmrisynth.evaluation.cohort.maps import on_mask
from fmrisynth.evaluation.measures.resampling import NAN
from fmrisynth.evaluation.runs.grids import Grid, supervoxels_of
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = [
    "MeanImages",
    "closest",
    "mean_images",
    "nearer",
    "nearest",
    "nearest_other",
    "retest_distances",
]

_BRIGHTEST = 3.0
"""Of the median: vessels are no anatomy."""


@dataclass(frozen=True)
class MeanImages:
    """The mean image of each participant of a source.

    Attributes
    ----------
    participants : tuple of str
        The P participants.
    whole : ndarray of shape (P, B)
        Mean over all runs.
    halves : ndarray of shape (P, 2, B)
        Mean over the first and over the last runs, by task; NaN where there is a single one.
    """

    participants: tuple[str, ...]
    whole: np.ndarray
    halves: np.ndarray


def mean_images(
    by_participant: Mapping[str, Sequence[RunRecord]], mask: np.ndarray, grid: Grid
) -> MeanImages:
    """Average the mean images of each participant's runs.

    Parameters
    ----------
    by_participant : mapping
        Participant → runs, one or more.
    mask : ndarray of bool of shape (X, Y, Z)
        Voxels that are compared, on the grid of the records.
    grid : Grid
        That grid.
    """
    _, average = supervoxels_of(mask, grid.affine)
    whole, halves = [], []
    for records in by_participant.values():
        images = np.array([average @ _relative(record, mask) for record in _in_order(records)])
        whole.append(images.mean(axis=0))
        middle = len(images) // 2
        parts = (images[:middle], images[middle:]) if middle else (images * NAN, images * NAN)
        halves.append([part.mean(axis=0) for part in parts])
    size = average.shape[0]
    return MeanImages(
        tuple(by_participant),
        np.array(whole).reshape(-1, size),
        np.array(halves).reshape(-1, 2, size),
    )


def _in_order(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Sort runs so that halves differ in task or number, not in the distortions of a direction."""
    return sorted(records, key=lambda record: (record.run.task, record.run.label))


def _relative(record: RunRecord, mask: np.ndarray) -> np.ndarray:
    """Return a run's mean over its median, (V,), zero where the run has no brain."""
    mean, own = record.arrays("mean", "mask")
    values = on_mask(mean[None], own, mask)[0]
    inside = values > 0
    clipped: np.ndarray = np.clip(values / np.median(values[inside]), 0, _BRIGHTEST)
    return clipped


def nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each image from the nearest of the others but one.

    One of the others is left out in turn, and the mean is taken, so that the distances are
    those of `nearest_other`, where nobody is compared with themselves.

    Parameters
    ----------
    images, others : ndarray of shape (P, B) and (Q, B)
        Mean images; Q of them, two or more.

    Returns
    -------
    ndarray of shape (P,)
    """
    distances = np.sort(_distances(images, others), axis=1)
    n = distances.shape[1]
    mean: np.ndarray = ((n - 1) * distances[:, 0] + distances[:, 1]) / n
    return mean


def closest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each of (P, B) images from the nearest of (Q, B)."""
    smallest: np.ndarray = _distances(images, others).min(axis=1)
    return smallest


def nearest_other(images: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each of (P, B) images from the nearest other one."""
    distances = _distances(images, images)
    np.fill_diagonal(distances, np.inf)
    smallest: np.ndarray = distances.min(axis=1)
    return smallest


def _distances(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.array([np.square(others - image).mean(axis=1) for image in images])


def retest_distances(*sources: MeanImages) -> np.ndarray:
    """Return the mean squared difference between halves of each participant's runs, if any."""
    differences = np.concatenate([s.halves[:, 0] - s.halves[:, 1] for s in sources])
    distances: np.ndarray = np.square(differences).mean(axis=1)
    return distances[np.isfinite(distances)]


def nearer(first: np.ndarray, second: np.ndarray) -> float:
    """Return the chance that one of the first distances is smaller than one of the second."""
    n, m = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))
    return float(1 - (ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
