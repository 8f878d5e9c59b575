"""Load the voxels of a run as float32, with their brain mask, and check both."""

from __future__ import annotations

import gzip
import logging
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError

from fmrisynth.bids.dataset import BoldRun
from fmrisynth.bids.headers import check_present, read_header
from fmrisynth.errors import DataError

__all__ = ["Bold", "load_bold", "load_mask"]

log = logging.getLogger(__name__)

MOST_NONFINITE = 0.01  # share of brain voxels that may be NaN or Inf before the run is refused
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

    Raises
    ------
    ValueError
        When shapes, types or values do not fit together.
    """

    data: np.ndarray
    affine: np.ndarray
    mask: np.ndarray
    t_r: float

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
        if not _finite(self.data)[self.mask].all():
            raise ValueError("data is not finite inside the mask")


def load_bold(run: BoldRun) -> Bold:
    """Load a run and its mask.

    Scaling (scl_slope, scl_inter) is applied; affines are kept, oblique and
    left-handed ones too. Voxels that are NaN or Inf at any time are set to 0;
    those in the brain leave the mask (logged) unless they are more than 1 % of it.
    Voxels that never change leave the mask as well. Without a mask in the dataset
    one is computed from the mean image (nilearn, `compute_epi_mask`).

    Raises
    ------
    DataError
        When an image is damaged, has too many NaN or Inf, or has no brain voxel
        that varies in time.
    """
    data = _voxels(run.bold)
    if data.shape != (*run.shape, run.n_volumes):
        raise DataError(
            f"{run.bold} has the shape {data.shape}, but had {(*run.shape, run.n_volumes)} when "
            "the dataset was searched. Do not change files during a call; run it again."
        )
    finite = _finite(data)
    if not finite.all():
        data[~finite] = 0
    mask = load_mask(run)
    if mask is None:
        mask = _computed_mask(data, run)
    mask = _without_nonfinite(mask, finite, run.bold)
    mask = _without_constant(mask, data, run.bold)
    return Bold(data, run.affine, mask, run.t_r)


def load_mask(run: BoldRun) -> np.ndarray | None:
    """Load the brain mask of a run on the run's grid; None when the dataset has none.

    A mask on another grid is resampled (nearest neighbour, logged) when it
    covers part of the run's field of view.

    Returns
    -------
    ndarray of shape (X, Y, Z), bool, or None

    Raises
    ------
    DataError
        When the image is damaged, not 3D, empty, or lies elsewhere.
    """
    if run.mask is None:
        return None
    header = read_header(run.mask)
    values = _voxels(run.mask)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise DataError(f"{run.mask} is {values.ndim}D; a brain mask has 3 dimensions")
    mask = np.nan_to_num(values) > 0.5
    if not mask.any():
        raise DataError(f"{run.mask} is an empty mask: no voxel is above 0.5")
    if mask.shape == run.shape and np.allclose(header.affine, run.affine, atol=_SAME_GRID):
        return mask
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


def _voxels(path: Path) -> np.ndarray:
    """Read an image as float32 with its scaling applied, and check the file to its end."""
    check_present(path)
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise DataError(f"{path} is a {type(image).__name__}; a NIfTI image is expected")
        proxy = cast(ArrayProxy, image.dataobj)
        dtype, slope, inter = proxy.dtype, float(proxy.slope), float(proxy.inter)
        if dtype.kind not in "iufb":
            raise DataError(f"{path} holds {dtype} voxels; real numbers are expected")
        n_bytes = int(np.prod(proxy.shape, dtype=np.int64)) * dtype.itemsize
        raw = _decompressed(path, proxy.offset, n_bytes)
        stored = np.frombuffer(raw, dtype).reshape(proxy.shape, order="F")
        with np.errstate(over="ignore", invalid="ignore"):
            data = stored.astype(np.float32)  # a fresh array, which may be changed in place
            if (slope, inter) != (1.0, 0.0):
                data *= np.float32(slope)
                data += np.float32(inter)
        return data
    except (EOFError, zlib.error, OSError, ValueError, OverflowError, ImageFileError) as error:
        raise DataError(
            f"{path} is damaged and cannot be read to its end ({error or type(error).__name__}). "
            "Copy or download it again."
        ) from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory") from error


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _decompressed(path: Path, offset: int, n_bytes: int) -> bytes:
    """Read the voxels of a NIfTI file, and the rest of it so that gzip checks its checksum."""
    with _opened(path) as file:
        file.read(offset)
        raw = file.read(n_bytes)
        while file.read(2**20):
            pass
    if len(raw) < n_bytes:
        raise DataError(
            f"{path} is truncated: its header promises {n_bytes} bytes of voxels, it holds "
            f"{len(raw)}. Copy or download it again."
        )
    return raw


def _finite(data: np.ndarray) -> np.ndarray:
    """Find the voxels that are finite at all times, without a 4D temporary."""
    with np.errstate(invalid="ignore", over="ignore"):
        # Sums of float32 cannot overflow float64, so a sum is finite when all terms are.
        return np.asarray(np.isfinite(data.sum(axis=-1, dtype=np.float64)))


def _computed_mask(data: np.ndarray, run: BoldRun) -> np.ndarray:
    from nilearn.masking import compute_epi_mask

    mean = nib.Nifti1Image(data.mean(axis=-1), run.affine)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Voxels outside a skull-stripped brain are 0 and would spoil the histogram.
            stripped = float((data[..., 0] == 0).mean()) > 0.2
            computed = compute_epi_mask(mean, exclude_zeros=stripped)
    except (ValueError, TypeError, IndexError) as error:
        raise DataError(f"no brain mask can be computed for {run.bold}: {error}") from error
    mask = np.asarray(computed.dataobj) > 0
    if not mask.any():
        raise DataError(
            f"no brain is found in {run.bold}: the mask computed from its mean image is empty. "
            "Provide a brain mask (…_desc-brain_mask.nii.gz)."
        )
    log.info("%s: no brain mask in the dataset, computed one", run.label)
    return mask


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
    varying = data.min(axis=-1) < data.max(axis=-1)
    n_constant, n_mask = int((mask & ~varying).sum()), int(mask.sum())
    if n_constant == n_mask:
        raise DataError(f"{path}: none of the {n_mask} brain voxels varies in time")
    if n_constant:
        level = logging.WARNING if n_constant > MOST_NONFINITE * n_mask else logging.INFO
        log.log(level, "%s: %d constant brain voxels left out", path, n_constant)
    return mask & varying


def _voxel_volume(affine: np.ndarray) -> float:
    return float(abs(np.linalg.det(affine[:3, :3])))
