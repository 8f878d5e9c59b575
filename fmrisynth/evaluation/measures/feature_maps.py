"""Map what distinguishes the runs of two sources, parcel by parcel.

Legend: R runs, F features, N parcels, B supervoxels, V voxels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.distance import squareform

from fmrisynth.evaluation.cohort.cohort import Cohort
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.classifier import FeatureTable
from fmrisynth.evaluation.runs.grids import Grid, supervoxels_of

__all__ = ["feature_differences", "feature_maps", "voxel_parcels"]

_TINY = 1e-9


def feature_maps(
    cohort: Cohort, tables: Mapping[str, FeatureTable], labels: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Map in what the runs of each source differ from the real held-out ones.

    Parameters
    ----------
    cohort : Cohort
        The sources.
    tables : mapping
        Source → features of its runs.
    labels : ndarray of int of shape (B,)
        Parcel of each supervoxel of the cohort.

    Returns
    -------
    dict
        Generator, and `TRAINING` as control → kind of features → ndarray of shape (V,), NaN in
        voxels of no parcel.
    """
    if REAL not in tables:
        return {}
    parcels = voxel_parcels(labels, cohort.keys, cohort.mask, cohort.grid)
    maps = {}
    for name in (*cohort.generators, TRAINING):
        if name in tables:
            real = tables[REAL]
            if name != TRAINING and not cohort.unpaired(name):
                real = real.keep(set(tables[name].participants))
            differences = feature_differences(real, tables[name], int(labels.max()) + 1)
            maps[name] = {
                kind: np.where(parcels >= 0, values[parcels], np.nan)
                for kind, values in differences.items()
            }
    return maps


def feature_differences(
    first: FeatureTable, second: FeatureTable, n_parcels: int
) -> dict[str, np.ndarray]:
    """Measure by how many standard deviations the features of two sources differ in each parcel.

    The weights of a linear classifier are a filter: large where they cancel noise, too. What it
    looks at is the pattern that belongs to them (Haufe et al. 2014, NeuroImage 87, 96–110), which
    for two classes of equal covariance is the difference of the classes' means. It is given as
    Cohen's d: divided by the standard deviation of runs within the sources.

    Parameters
    ----------
    first, second : FeatureTable
        The two sources, their features in the same parcels.
    n_parcels : int
        Number of parcels.

    Returns
    -------
    dict
        Kind of features → ndarray of shape (N,): second less first, mean over the features of a
        parcel; for connectivity over its pairs. Features that do not vary count as 0.
    """
    return {
        kind: _of_parcels(kind, _cohens_d(values, second.features[kind]), n_parcels)
        for kind, values in first.features.items()
    }


def _cohens_d(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Divide the difference of means (F,) by the pooled standard deviation within (R, F) each."""
    means = [part.mean(axis=0, dtype=np.float64) for part in (first, second)]
    squares = sum(
        np.square(part - mean).sum(axis=0)
        for part, mean in zip((first, second), means, strict=True)
    )
    sd = np.sqrt(squares / max(len(first) + len(second) - 2, 1))
    difference = means[1] - means[0]
    return np.divide(difference, sd, out=np.zeros_like(difference), where=sd > _TINY)


def _of_parcels(kind: str, values: np.ndarray, n_parcels: int) -> np.ndarray:
    """Average values of features (F,) within parcels (N,)."""
    if kind == "connectivity":
        return squareform(values, checks=False).sum(axis=1) / max(n_parcels - 1, 1)
    return values.reshape(-1, n_parcels).mean(axis=0)


def voxel_parcels(labels: np.ndarray, keys: np.ndarray, mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Find the parcel of each voxel.

    Parameters
    ----------
    labels : ndarray of int of shape (B,)
        Parcel of each supervoxel.
    keys : ndarray of int of shape (B, 3)
        Supervoxels.
    mask : ndarray of bool of shape (X, Y, Z)
        Mask with ``V`` voxels.
    grid : Grid
        Grid of the mask.

    Returns
    -------
    ndarray of int of shape (V,)
        −1 in voxels of no parcel.
    """
    label_of = {tuple(key): int(label) for key, label in zip(keys.tolist(), labels, strict=True)}
    own, average = supervoxels_of(mask, grid.affine)
    of_rows = np.array([label_of.get(tuple(key), -1) for key in own.tolist()])
    rows, voxels = average.nonzero()
    parcels = np.full(int(mask.sum()), -1)
    parcels[voxels] = of_rows[rows]
    return parcels
