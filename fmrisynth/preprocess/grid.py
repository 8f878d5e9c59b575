"""Choose the model grid, one lattice cropped to the brain, and resample images onto it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nilearn.image import resample_img
from nilearn.image.resampling import BoundingBoxError

from fmrisynth.errors import DataError

__all__ = ["Grid", "choose_grid", "continue_outside", "resample", "resample_into"]

LATTICE_TOLERANCE = 1e-3  # voxels
PARALLEL = 1e-7  # sines of angles between axes that count as none
BAND = 2  # places interpolated at once, between few of an axis' voxels


@dataclass(frozen=True)
class Grid:
    """A lattice in world space and the brain on it.

    Attributes
    ----------
    shape : tuple of int
        (X, Y, Z); multiples of the factor that `choose_grid` was given.
    affine : ndarray of shape (4, 4)
        Voxel indices to mm.
    mask : ndarray of shape (X, Y, Z), bool
        Voxels that lie in the brain of enough runs.

    Raises
    ------
    DataError
        The mask is not bool, or has another shape.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    mask: np.ndarray

    def __post_init__(self) -> None:
        """Refuse a mask that does not lie on the grid."""
        if self.mask.shape != self.shape or self.mask.dtype != bool:
            raise DataError(
                f"A grid of shape {self.shape} was given a mask of shape {self.mask.shape} and "
                f"type {self.mask.dtype}; expected bool on the same shape."
            )


def _bounding_box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the first index of a mask along each axis, and the one past the last."""
    index = np.argwhere(mask)
    return index.min(axis=0), index.max(axis=0) + 1


def _world_box(mask: np.ndarray, affine: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Compute the bounding box (2, 3) of a mask's voxel edges in another lattice's indices."""
    low, high = _bounding_box(mask)
    corners = np.array(
        [
            [x, y, z, 1]
            for x in (low[0], high[0])
            for y in (low[1], high[1])
            for z in (low[2], high[2])
        ]
    ) - np.array([0.5, 0.5, 0.5, 0])
    inside = (np.linalg.inv(into) @ affine @ corners.T)[:3]
    return np.stack([inside.min(axis=1) + 0.5, inside.max(axis=1) + 0.5])


def choose_grid(
    masks: Sequence[tuple[np.ndarray, np.ndarray]],
    voxel_size: float | None,
    multiple: int,
    *,
    margin: int = 0,
    share: float = 0.5,
) -> Grid:
    """Choose the model grid of a set of runs.

    Where the first run's voxels have the requested size (within 5 %), its lattice
    is kept, so that runs on it are cropped and never interpolated; otherwise the
    grid has the first run's axes at the requested voxel size.

    Parameters
    ----------
    masks : sequence of (mask, affine)
        Distinct brain masks of shape (X, Y, Z), bool, and their affines (4, 4).
    voxel_size : float or None
        Edge of a voxel (mm), that of the finest run where this is larger; None keeps the
        first run's own voxels.
    multiple : int
        The shape becomes a multiple of this, as the network's strides require.
    margin : int
        Voxels added around the brain before rounding up.
    share : float
        A voxel belongs to the brain when it lies in at least this share of the masks.

    Returns
    -------
    Grid
        Lattice, shape and mask.
    """
    first = masks[0][1]
    lattice = first.copy()
    own = np.linalg.norm(first[:3, :3], axis=0)
    if voxel_size is not None:  # nothing is gained by voxels finer than the data's
        finest = min(abs(np.linalg.det(affine[:3, :3])) for _, affine in masks) ** (1 / 3)
        voxel_size = max(voxel_size, finest)
    if voxel_size is not None and not np.allclose(own, voxel_size, rtol=0.05):
        lattice[:3, :3] = first[:3, :3] / own * voxel_size
        # keep the outer corner of the first voxel where it is
        lattice[:3, 3] = first[:3, 3] - first[:3, :3].sum(1) / 2 + lattice[:3, :3].sum(1) / 2
    boxes = np.stack([_world_box(mask, affine, lattice) for mask, affine in masks])
    low = np.floor(boxes[:, 0].min(0) + LATTICE_TOLERANCE).astype(int) - margin
    high = np.ceil(boxes[:, 1].max(0) - LATTICE_TOLERANCE).astype(int) + margin
    size = -(-(high - low) // multiple) * multiple
    low -= (size - (high - low)) // 2
    affine = lattice.copy()
    affine[:3, 3] = lattice[:3, :3] @ low + lattice[:3, 3]
    shape = (int(size[0]), int(size[1]), int(size[2]))
    votes = np.mean(
        [resample(mask.astype(np.float32), a, affine, shape, "nearest") for mask, a in masks],
        axis=0,
    )
    return Grid(shape, affine, votes >= share)


def continue_outside(volumes: np.ndarray, mask: np.ndarray, edge: int) -> np.ndarray:
    """Give voxels outside of the brain the mean of the brain's voxels in their block.

    An autoencoder of blocks takes zeros beyond the brain's edge for signal, and gives back as
    much of a block's mean as there is brain in it.

    Parameters
    ----------
    volumes : ndarray of shape (T, X, Y, Z)
        Any values outside of the brain, which are not looked at.
    mask : ndarray of shape (X, Y, Z) or (T, X, Y, Z), bool
        The brain.
    edge : int
        Edge of a block, voxels, which the shape is a multiple of.

    Returns
    -------
    ndarray of shape (T, X, Y, Z)
        float32; zero in blocks without brain.
    """
    inside = mask.astype(np.float32)
    count = _block_sums(inside if mask.ndim == 4 else inside[None], edge)
    mean = _block_sums(np.where(mask, volumes, 0).astype(np.float32), edge)
    mean /= np.maximum(count, 1)
    for axis in (1, 2, 3):
        mean = mean.repeat(edge, axis)
    return np.where(mask, volumes, mean).astype(np.float32)


def _block_sums(volumes: np.ndarray, edge: int) -> np.ndarray:
    """Add up blocks of voxels, (T, X, Y, Z) → (T, X / edge, Y / edge, Z / edge)."""
    for axis in (1, 2, 3):
        volumes = np.add.reduceat(volumes, np.arange(0, volumes.shape[axis], edge), axis)
    return volumes


def _lattice_offset(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Find the voxel offset of `target` within `source`; None when the lattices differ."""
    between = np.linalg.inv(source) @ target
    if not np.allclose(between[:3, :3], np.eye(3), atol=LATTICE_TOLERANCE):
        return None
    offset = np.rint(between[:3, 3])
    if not np.allclose(between[:3, 3], offset, atol=LATTICE_TOLERANCE * 10):
        return None
    return offset.astype(int)


def resample(
    data: np.ndarray,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: tuple[int, ...],
    interpolation: Any = "linear",
) -> np.ndarray:
    """Resample an image onto another grid; voxels without data become zero.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z) or (X, Y, Z, T), float32
        The image.
    affine, target_affine : ndarray of shape (4, 4)
        Voxel indices to mm, of the image and of the other grid.
    target_shape : tuple of int
        (X', Y', Z').
    interpolation : {"linear", "nearest", "continuous"}
        As in nilearn.

    Returns
    -------
    ndarray of shape (X', Y', Z') or (X', Y', Z', T), float32
        Where both grids lie on one lattice the voxels are copied, not interpolated.
    """
    offset = _lattice_offset(affine, target_affine)
    if offset is not None:
        return _crop(data, offset, target_shape)
    between = np.linalg.inv(affine) @ target_affine
    if interpolation == "linear" and _is_parallel(between):
        interpolated = _interpolate_axes(data, between, target_shape)
        if np.isfinite(interpolated).all():  # else scipy, which keeps NaN and Inf to themselves
            return interpolated
    image = nib.Nifti1Image(data, affine)
    try:
        moved = resample_img(
            image,
            target_affine=target_affine,
            target_shape=target_shape,
            interpolation=interpolation,
            fill_value=0,
            copy_header=True,
            force_resample=True,
        )
    except BoundingBoxError:  # the two do not meet anywhere
        return np.zeros((*target_shape, *data.shape[3:]), np.float32)
    return np.asarray(moved.dataobj, dtype=np.float32)


def resample_into(
    data: np.ndarray, affine: np.ndarray, target_affine: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Resample a run linearly into the voxels of a mask on another grid.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z, T), float32
        The run.
    affine, target_affine : ndarray of shape (4, 4)
        Voxel indices to mm, of the run and of the mask.
    mask : ndarray of shape (X', Y', Z'), bool
        Chooses V voxels, often a third of the grid.

    Returns
    -------
    ndarray of shape (V, T), float32
        As `resample` gives them, without the memory and the time of the other voxels.
    """
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    between = np.linalg.inv(affine) @ target_affine
    if _lattice_offset(affine, target_affine) is None and _is_parallel(between):
        series = _interpolate_into(data, between, mask)
        if np.isfinite(series).all():
            return series
    return resample(data, affine, target_affine, shape)[mask]


def _is_parallel(between: np.ndarray) -> bool:
    """Say whether the axes of two lattices are parallel, in the same order."""
    matrix = between[:3, :3]
    return bool(np.abs(matrix - np.diag(np.diag(matrix))).max() < PARALLEL * np.abs(matrix).max())


def _interpolate_axes(data: np.ndarray, between: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate linearly between parallel lattices, one axis after the other.

    The result is that of scipy's interpolation in three dimensions, which takes ten times as long.
    """
    moved = np.ascontiguousarray(data, np.float32).reshape(*data.shape[:3], -1)  # X Y Z T
    across, along, up = _axes_weights(data, between, shape)
    out = np.empty((*shape, moved.shape[3]), np.float32)
    for start in range(0, len(across), BAND):
        columns = _columns(moved, across[start : start + BAND], along)
        out[start : start + BAND] = _weighted(up, columns).reshape(-1, *out.shape[1:])
    return out.reshape(*shape, *data.shape[3:])


def _interpolate_into(data: np.ndarray, between: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Interpolate as `_interpolate_axes`, the last axis in the mask only."""
    moved = np.ascontiguousarray(data, np.float32)
    across, along, up = _axes_weights(data, between, mask.shape)
    series = np.empty((int(np.count_nonzero(mask)), moved.shape[3]), np.float32)
    chosen = np.flatnonzero(mask.any(axis=(0, 2)))
    lines = slice(chosen[0], chosen[-1] + 1) if chosen.size else slice(0)
    first = 0
    for start in range(0, len(mask), BAND):
        inside = mask[start : start + BAND, lines]
        if not inside.any():
            continue
        columns = _columns(moved, across[start : start + BAND], along[lines])
        for column, voxels in zip(columns, inside.reshape(len(columns), -1), strict=True):
            count = int(np.count_nonzero(voxels))
            if count:
                np.matmul(up[voxels], column, out=series[first : first + count])
            first += count
    return series


def _columns(moved: np.ndarray, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Interpolate an image (X, Y, Z, T) along its first two axes, to (X' Y', Z, T)."""
    planes = _weighted(across, moved.reshape(1, len(moved), -1))
    columns = _weighted(along, planes.reshape(len(across), moved.shape[1], -1))
    return columns.reshape(-1, *moved.shape[2:])


def _axes_weights(data: np.ndarray, between: np.ndarray, shape: Iterable[int]) -> list[np.ndarray]:
    """Compute the weights along each axis of parallel lattices."""
    return [
        _linear_weights(between[axis, axis] * np.arange(size) + between[axis, 3], length)
        for axis, (size, length) in enumerate(zip(shape, data.shape, strict=False))
    ]


def _weighted(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Multiply weights (M, L) with each of (B, L, K), leaving out what has no weight in a band."""
    out = np.zeros((len(rows), len(weights), rows.shape[2]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(weights), BAND):
            band = weights[start : start + BAND]
            used = np.flatnonzero(band.any(axis=0))
            if used.size:
                part = slice(used[0], used[-1] + 1)
                np.matmul(band[:, part], rows[:, part], out=out[:, start : start + len(band)])
    return out


def _linear_weights(place: np.ndarray, length: int) -> np.ndarray:
    """Compute the weights (M, L) by which M places between L voxels are interpolated, float32.

    Places beyond the first and the last voxel's centre have none.
    """
    inside = (place >= 0) & (place <= length - 1)
    below = np.clip(np.floor(place), 0, max(length - 2, 0)).astype(int)
    share = np.clip(place - below, 0, 1)
    weights = np.zeros((len(place), length), np.float32)
    rows = np.arange(len(place))
    weights[rows, np.minimum(below + 1, length - 1)] = share
    weights[rows, below] += (1 - share).astype(np.float32)
    weights[~inside] = 0
    return weights


def _crop(data: np.ndarray, offset: np.ndarray, shape: Iterable[int]) -> np.ndarray:
    """Cut a box out of an array; outside of the array it is zero."""
    shape = tuple(shape)
    out = np.zeros(shape + data.shape[3:], dtype=np.float32)
    low = np.maximum(offset, 0)
    high = np.minimum(offset + shape, data.shape[:3])
    if (high <= low).any():
        return out
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, offset, strict=True))
    out[target] = data[source]
    return out
