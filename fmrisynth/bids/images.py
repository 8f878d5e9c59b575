"""Load the voxels of a run as float32, with their brain mask, and check both."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError

from fmrisynth.bids.brain_masks import compute_brain_mask
from fmrisynth.bids.checks import find_outlying_volumes, interpolate_volumes, require_mean
from fmrisynth.bids.confounds import known_outliers
from fmrisynth.bids.dataset import BoldRun
from fmrisynth.bids.headers import check_present, read_header
from fmrisynth.bids.nifti import GZIP_ERRORS, Gzip
from fmrisynth.bids.pieces import VOLUMES_AT_ONCE, VOXELS_AT_ONCE, brain_series
from fmrisynth.errors import DataError

__all__ = ["Bold", "load_bold", "load_mask", "load_volume"]

log = logging.getLogger(__name__)

MOST_NONFINITE = 0.01  # share of brain voxels that may be NaN or Inf before the run is refused
_MOST_LISTED = 10  # outlying volumes that a message lists
_DAMAGE: tuple[type[Exception], ...] = (
    *GZIP_ERRORS,
    OSError,
    ValueError,
    OverflowError,
    ImageFileError,
)
_SAME_GRID = 1e-3  # mm, and its square in voxel size; headers are stored as float32


@dataclass(frozen=True, eq=False)
class Bold:
    """One run in memory, checked at construction.

    Attributes
    ----------
    data : ndarray of shape (X, Y, Z, T), float32
        Intensities; finite inside the mask.
    affine : ndarray of shape (4, 4)
        Voxel indices to mm.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels, at least one.
    t_r : float
        Repetition time (s).
    outlying : ndarray of shape (T,), bool, or None
        Volumes that were outliers and are interpolated; None where there are none.

    Raises
    ------
    ValueError
        When shapes, types or values do not fit together.
    """

    data: np.ndarray
    affine: np.ndarray
    mask: np.ndarray
    t_r: float
    outlying: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or self.data.dtype != np.float32:
            raise ValueError(f"data must be 4D float32, not {self.data.ndim}D {self.data.dtype}")
        if self.mask.shape != self.data.shape[:3] or self.mask.dtype != np.bool_:
            raise ValueError(
                f"mask must be bool of shape {self.data.shape[:3]}, not {self.mask.dtype} of "
                f"shape {self.mask.shape}"
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError(f"affine must be a finite 4 by 4 matrix, not {self.affine}")
        if not self.t_r > 0:
            raise ValueError(f"t_r must be positive, not {self.t_r}")
        if not self.mask.any():
            raise ValueError("the mask is empty")
        if not all(np.isfinite(s).all() for _, s in brain_series(self.data, self.mask)):
            raise ValueError("data is not finite inside the mask")


def load_bold(run: BoldRun, *, brain_only: bool = False) -> Bold:
    """Load a run and its mask.

    Scaling (scl_slope, scl_inter) is applied; affines are kept, oblique and
    left-handed ones too. Voxels that are NaN or Inf at any time are set to 0;
    those in the brain leave the mask (logged) unless they are more than 1 % of it.
    Voxels that never change leave the mask as well. Without a mask in the dataset
    one is computed from all images of the participant on the same grid. Outlying
    volumes, those that the confounds name included, are interpolated in time.

    Parameters
    ----------
    run : BoldRun
        Its files.
    brain_only : bool
        Whether all voxels outside of the mask are zero, which takes a third of the time.

    Raises
    ------
    DataError
        When an image is damaged, has too many NaN or Inf, has no brain voxel
        that varies in time, has lost its mean, or consists of outlying volumes.
    """
    mask = load_mask(run)
    data = _voxels(run.bold, mask if brain_only else None)
    if data.shape != (*run.shape, run.n_volumes):
        raise DataError(
            f"{run.bold} has the shape {data.shape}, but had {(*run.shape, run.n_volumes)} when "
            "the dataset was searched. Do not change files during a call; run it again."
        )
    finite = _finite(data, mask if brain_only else None)
    if not finite.all():
        data[~finite] = 0
    mask = _without_nonfinite(mask, finite, run.bold)
    varying = _without_constant(mask, data, run.bold)
    if brain_only:
        data[mask & ~varying] = 0
    mask = varying
    known, suspect = known_outliers(run.confounds, run.n_volumes)
    outlying = find_outlying_volumes(data, mask, known, suspect)
    interpolate_volumes(data, outlying, run.bold)
    require_mean(data, mask, run.bold)
    if not outlying.any():
        return Bold(data, run.affine, mask, run.t_r)
    listed = np.flatnonzero(outlying)
    log.warning(
        "%s: outlying volumes are left out and interpolated: %s%s",
        run.bold,
        ", ".join(map(str, listed[:_MOST_LISTED])),
        f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else "",
    )
    return Bold(data, run.affine, mask, run.t_r, outlying)


def load_mask(run: BoldRun) -> np.ndarray:
    """Load the brain mask of a run on the run's grid, or compute one where there is none.

    A mask on another grid is resampled (nearest neighbour, logged) when it
    covers part of the run's field of view. A computed mask is the same for all
    runs of a participant on one grid.

    Returns
    -------
    ndarray of shape (X, Y, Z), bool

    Raises
    ------
    DataError
        When the image is damaged, not 3D, empty, or lies elsewhere; when no mask
        can be computed.
    """
    if run.mask is None:
        return _participant_mask(run.siblings or (run.bold,))
    header = read_header(run.mask)
    values = _voxels(run.mask)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise DataError(f"{run.mask} is {values.ndim}D; a brain mask has 3 dimensions")
    mask = np.nan_to_num(values) > 0.5
    if not mask.any():
        raise DataError(f"{run.mask} is an empty mask: no voxel is above 0.5")
    placed = not header.has_orientation or np.allclose(header.affine, run.affine, atol=_SAME_GRID)
    if mask.shape == run.shape and placed:
        return mask
    if not header.has_orientation:
        raise DataError(
            f"{run.mask} has no orientation in its header (qform_code and sform_code are 0) and "
            f"another shape {mask.shape} than {run.bold} {run.shape}"
        )
    from nilearn.image import resample_img

    resampled = resample_img(
        nib.Nifti1Image(mask.astype(np.uint8), header.affine),
        target_affine=run.affine,
        target_shape=run.shape,
        interpolation="nearest",
        copy_header=True,
        force_resample=True,
    )
    on_grid = np.asarray(resampled.dataobj) > 0
    # A mask of the same space keeps its volume; one of another space loses most of it.
    share = on_grid.sum() * _voxel_volume(run.affine) / (mask.sum() * _voxel_volume(header.affine))
    if share < 0.5:
        raise DataError(
            f"{run.mask} (shape {mask.shape}) lies on another grid than {run.bold} (shape "
            f"{run.shape}), and only {share:.0%} of it within the image. Is it of the same space?"
        )
    log.warning(
        "%s: the mask %s has another grid (%s) and is resampled",
        run.label,
        run.mask.name,
        "×".join(str(size) for size in mask.shape),
    )
    return on_grid


def load_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Load a 3D image.

    Returns
    -------
    data : ndarray of shape (X, Y, Z), float32
        Finite values.
    affine : ndarray of shape (4, 4)
        Voxel indices to mm.

    Raises
    ------
    DataError
        When the image is damaged, or not 3D.
    """
    header = read_header(path)
    values = _voxels(path)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise DataError(f"{path} is {values.ndim}D; 3 dimensions are expected")
    return np.nan_to_num(values), header.affine


@lru_cache(maxsize=8)
def _participant_mask(images: tuple[Path, ...]) -> np.ndarray:
    """Compute the brain mask of images on one grid; kept, since every run asks for it."""
    means, varying = [], []
    for path in images:
        try:
            data = _voxels(path)
        except DataError as error:
            problem = error  # its own run is reported where it is read
            continue
        data[~_finite(data)] = 0
        means.append(data.mean(axis=-1))
        varying.append(data.min(axis=-1) < data.max(axis=-1))
    if not means:
        raise problem
    mask = compute_brain_mask(means, varying, images[0])
    mask.flags.writeable = False
    log.debug(
        "%s: no brain mask in the dataset, computed one of %d runs", images[0].name, len(means)
    )
    return mask


def _voxels(path: Path, wanted: np.ndarray | None = None) -> np.ndarray:
    """Read an image as float32 with its scaling applied, and check the file to its end.

    Only the voxels of a mask that is given are read of a run of the mask's shape.
    """
    check_present(path)
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise DataError(f"{path} is a {type(image).__name__}; a NIfTI image is expected")
        proxy = cast(ArrayProxy, image.dataobj)
        dtype, slope, inter = proxy.dtype, float(proxy.slope), float(proxy.inter)
        if dtype.kind not in "iufb":
            raise DataError(f"{path} holds {dtype} voxels; real numbers are expected")
        n_volumes = max(1, proxy.shape[3]) if len(proxy.shape) == 4 else 1
        n_bytes = int(np.prod(proxy.shape, dtype=np.int64)) * dtype.itemsize
        at_once = max(1, VOLUMES_AT_ONCE * n_bytes // n_volumes)
        parts = _decompressed(path, proxy.offset, n_bytes, at_once)
        blocks = (np.frombuffer(part, dtype) for part in parts)
        with np.errstate(over="ignore", invalid="ignore"):
            if len(proxy.shape) == 4:
                return _in_series(blocks, proxy.shape, slope, inter, wanted)
            stored = np.concatenate(list(blocks)).reshape(proxy.shape, order="F")
            return _scaled(stored.astype(np.float32), slope, inter)
    except _DAMAGE as error:
        raise DataError(
            f"{path} is damaged and cannot be read to its end ({error or type(error).__name__}). "
            "Copy or download it again."
        ) from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory") from error


def _scaled(values: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """Apply a header's scaling to float32, in place."""
    if (slope, inter) != (1.0, 0.0):
        values *= np.float32(slope)
        values += np.float32(inter)
    return values


def _in_series(
    blocks: Iterable[np.ndarray],
    shape: tuple[int, ...],
    slope: float,
    inter: float,
    wanted: np.ndarray | None,
) -> np.ndarray:
    """Copy a run to scaled float32, such that a voxel's series is one piece of memory.

    Whatever is done with a run is done with its brain's series.
    """
    grid = shape[:3]
    if wanted is None or wanted.shape != grid:
        wanted = np.ones(grid, bool)
    voxels = np.flatnonzero(wanted)
    # where a file, in Fortran's order, has them
    places = np.ravel_multi_index(np.unravel_index(voxels, grid), grid, order="F")
    data = np.zeros(shape, np.float32)
    rows = data.reshape(-1, shape[3])  # V T
    for number, block in enumerate(blocks):
        chosen = np.stack([volume.take(places) for volume in block.reshape(-1, wanted.size)])
        frames = slice(number * VOLUMES_AT_ONCE, number * VOLUMES_AT_ONCE + len(chosen))
        for first in range(0, len(voxels), VOXELS_AT_ONCE):
            some = slice(first, first + VOXELS_AT_ONCE)
            rows[voxels[some], frames] = _scaled(chosen[:, some].T.astype(np.float32), slope, inter)
    return data


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], Gzip(path)) if path.suffix == ".gz" else path.open("rb")


def _decompressed(path: Path, offset: int, n_bytes: int, part: int) -> Iterator[bytes]:
    """Read the voxels of a NIfTI file in parts, and its rest so that gzip checks its checksum."""
    with _opened(path) as file:
        file.read(offset)
        for start in range(0, n_bytes, part):
            wanted = min(part, n_bytes - start)
            raw = file.read(wanted)
            if len(raw) < wanted:
                raise DataError(
                    f"{path} is truncated: its header promises {n_bytes} bytes of voxels, it "
                    f"holds {start + len(raw)}. Copy or download it again."
                )
            yield raw
        while file.read(2**20):
            pass


def _finite(data: np.ndarray, read: np.ndarray | None = None) -> np.ndarray:
    """Find the voxels that are finite at all times; those that were not read are."""
    finite = np.ones(data.shape[:3], bool)
    with np.errstate(invalid="ignore", over="ignore"):
        for voxels, series in brain_series(data, finite.copy() if read is None else read):
            # Sums of float32 cannot overflow float64, so a sum is finite when all terms are.
            finite.ravel()[voxels] = np.isfinite(series.sum(axis=-1, dtype=np.float64))
    return finite


def _without_nonfinite(mask: np.ndarray, finite: np.ndarray, path: Path) -> np.ndarray:
    n_nonfinite, n_mask = int((mask & ~finite).sum()), int(mask.sum())
    if n_nonfinite > MOST_NONFINITE * n_mask:
        raise DataError(
            f"{path}: {n_nonfinite} of {n_mask} brain voxels are NaN or Inf at some time; at most "
            f"{MOST_NONFINITE:.0%} are tolerated"
        )
    if n_nonfinite:
        log.warning("%s: %d brain voxels with NaN or Inf left out", path, n_nonfinite)
    return mask & finite


def _without_constant(mask: np.ndarray, data: np.ndarray, path: Path) -> np.ndarray:
    varying = np.zeros_like(mask)
    for voxels, series in brain_series(data, mask):
        varying.ravel()[voxels] = (series != series[:, :1]).any(axis=-1)
    n_mask = int(mask.sum())
    n_constant = n_mask - int(varying.sum())
    if n_constant == n_mask:
        raise DataError(f"{path}: none of the {n_mask} brain voxels varies in time")
    if n_constant:
        level = logging.WARNING if n_constant > MOST_NONFINITE * n_mask else logging.INFO
        log.log(level, "%s: %d constant brain voxels left out", path, n_constant)
    return varying


def _voxel_volume(affine: np.ndarray) -> float:
    return float(abs(np.linalg.det(affine[:3, :3])))
