"""Bring maps to a grid, and average voxels into supervoxels and parcels.

Legend: V voxels of a mask, B supervoxels, L parcels, T volumes.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import partial

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import sparse

from fmrisynth.errors import DataError
from fmrisynth.evaluation.runs.atlas import Atlas

__all__ = ["SUPERVOXEL_MM", "Grid", "Rois", "labels_on", "supervoxels_of", "to_grid"]

SUPERVOXEL_MM = 12.0
"""Edge of the supervoxels in world space, in mm."""


@dataclass(frozen=True)
class Grid:
    """The voxel grid on which participants are compared.

    Attributes
    ----------
    affine : ndarray of shape (4, 4)
        Voxel to world, in mm.
    shape : tuple of int
        ``(X, Y, Z)``.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]


def supervoxels_of(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
    """Group voxels into supervoxels of 12 mm that are the same for every grid of a space.

    Parameters
    ----------
    mask : ndarray of bool of shape (X, Y, Z)
        Mask with ``V`` voxels.
    affine : ndarray of shape (4, 4)
        Voxel to world, in mm.

    Returns
    -------
    keys : ndarray of int of shape (B, 3)
        Place of each supervoxel in world space, in units of 12 mm.
    average : sparse array of shape (B, V)
        Averages voxels into supervoxels.
    """
    world = apply_affine(affine, np.argwhere(mask))
    places = np.floor(world / SUPERVOXEL_MM + 1e-6).astype(np.int16)
    low = places.min(axis=0)
    box = places.max(axis=0) - low + 1
    # one number for each place of the box: sorting rows of places would take ten times as long
    numbers, index, counts = np.unique(
        np.ravel_multi_index(tuple((places - low).T), tuple(box)),
        return_inverse=True,
        return_counts=True,
    )
    keys = np.stack(np.unravel_index(numbers, tuple(box)), axis=1).astype(np.int16) + low
    full = counts >= 0.25 * counts.max()  # slivers at the brain's edge are mostly noise
    average = sparse.csr_array(
        ((1.0 / counts[index]).astype(np.float32), (index, np.arange(len(index)))),
        shape=(len(keys), len(index)),
    )
    return keys[full], average[np.flatnonzero(full)]


def labels_on(
    labels: np.ndarray, own: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Bring a volume of labels to another grid, taking the nearest voxel.

    Parameters
    ----------
    labels : ndarray of int of shape (X', Y', Z')
        Labels, 0 outside.
    own, affine : ndarray of shape (4, 4)
        Affine of the labels and of the grid wanted, in mm.
    shape : tuple of int
        Shape ``(X, Y, Z)`` of the grid wanted.

    Returns
    -------
    ndarray of int of shape (X, Y, Z)
    """
    voxels = np.indices(shape).reshape(3, -1).T
    places = np.rint(apply_affine(np.linalg.inv(own) @ affine, voxels)).astype(np.int64)
    inside = ((places >= 0) & (places < labels.shape)).all(axis=1)
    moved = np.zeros(len(voxels), dtype=np.int32)
    moved[inside] = labels[tuple(places[inside].T)]
    return moved.reshape(shape)


@dataclass(frozen=True)
class Rois:
    """An atlas in the form that is sent to other processes.

    Attributes
    ----------
    labels : ndarray of int of shape (X, Y, Z)
        Label of each voxel, 0 outside.
    affine : ndarray of shape (4, 4)
        Voxel to world, in mm.
    digest : str
        Names the content.
    """

    labels: np.ndarray
    affine: np.ndarray
    digest: str

    @classmethod
    def of(cls, atlas: Atlas) -> Rois:
        """Take an atlas apart."""
        labels = np.asarray(atlas.image.dataobj).astype(np.int32)
        parts = labels.tobytes() + np.round(atlas.image.affine, 4).tobytes()
        return cls(labels, atlas.image.affine, hashlib.sha256(parts).hexdigest()[:20])

    def series(
        self, signal: np.ndarray, mask: np.ndarray, affine: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Average a run's signal (V, T) over parcels: labels (L,) and series (L, T)."""
        shape = (mask.shape[0], mask.shape[1], mask.shape[2])
        own = labels_on(self.labels, self.affine, affine, shape)[mask]
        present, index, counts = np.unique(own, return_inverse=True, return_counts=True)
        average = sparse.csr_array(
            ((1.0 / counts[index]).astype(np.float32), (index, np.arange(len(index)))),
            shape=(len(present), len(index)),
        )
        return present[present > 0], (average @ signal)[present > 0]


def to_grid(
    maps: np.ndarray, mask: np.ndarray, affine: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Bring maps on a mask to a grid.

    Parameters
    ----------
    maps : ndarray of shape (M, V)
        Maps on the mask.
    mask : ndarray of bool of shape (X, Y, Z)
        Mask with ``V`` voxels.
    affine : ndarray of shape (4, 4)
        Voxel to world, in mm.
    grid : Grid
        Where they are to lie.

    Returns
    -------
    mask : ndarray of bool of shape grid.shape
        The mask there, by the nearest voxel, with ``V'`` voxels.
    maps : ndarray of shape (M, V')
        The maps on it, by linear interpolation.

    Raises
    ------
    DataError
        When they do not overlap.
    """
    if mask.shape == grid.shape and np.allclose(affine, grid.affine, atol=1e-3):
        return mask, maps
    from nilearn.image import resample_img

    volumes = np.zeros((*mask.shape, len(maps)), dtype=np.float32)
    volumes[mask] = maps.T
    resample = partial(
        resample_img, target_affine=grid.affine, target_shape=grid.shape, copy_header=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moved = resample(nib.Nifti1Image(volumes, affine), interpolation="linear")
        moved_mask = resample(
            nib.Nifti1Image(mask.astype(np.uint8), affine), interpolation="nearest"
        )
    new_mask = moved_mask.get_fdata() > 0.5
    if not new_mask.any():
        raise DataError(
            "its brain does not overlap the grid of the other runs; runs to be compared must "
            "share one space (use --space to choose it)"
        )
    return new_mask, moved.get_fdata(dtype=np.float32)[new_mask].T
