"""Compute the brain mask of a participant from the mean images of all its runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from fmrisynth.errors import DataError

__all__ = ["compute_brain_mask"]

STRIPPED_SHARE = 0.2  # share of voxels of exactly one value, from which on an image is masked
BACKGROUND = 0.25  # intensity of air and edges, relative to the brain's
MOST_OPENED = 0.8  # share of the mask that opening has to leave
SMALLEST, LARGEST = 0.03, 0.95  # share of the field of view that a brain takes


def compute_brain_mask(
    means: Sequence[np.ndarray], varying: Sequence[np.ndarray], path: Path
) -> np.ndarray:
    """Compute one brain mask of runs on one grid.

    Images that are masked already have their mask: the voxels that vary. Of
    others the mean over runs is split by nilearn's `compute_epi_mask`, and where
    this gives no plausible brain, by Otsu's threshold (IEEE Trans. Syst. Man
    Cybern. 9, 62, 1979).

    Parameters
    ----------
    means : sequence of ndarray of shape (X, Y, Z)
        Temporal mean of each run.
    varying : sequence of ndarray of shape (X, Y, Z), bool
        Voxels of each run that vary in time.
    path : Path
        One of the images, for the message.

    Returns
    -------
    ndarray of shape (X, Y, Z), bool

    Raises
    ------
    DataError
        No method finds a brain.
    """
    always = np.logical_and.reduce([v for v in varying if v.any()] or [varying[0]])
    # each run counts the same, whatever its units
    mean = np.mean([image / max(float(np.abs(image).max()), 1e-30) for image in means], axis=0)
    stripped = _plausible(always) and (~always).mean() > STRIPPED_SHARE
    if stripped and not _has_background(mean[always]):
        return _largest_part(always)
    if any(v.any() for v in varying):
        for mask in (_histogram_mask(mean), _otsu_mask(mean)):
            if _plausible(mask):
                return _largest_part(mask)
    raise DataError(
        f"no brain is found in {path}: none of the masks computed from its mean image is "
        "plausible. Provide a brain mask (…_desc-brain_mask.nii.gz)."
    )


def _has_background(values: np.ndarray) -> bool:
    """Say whether a quarter of the voxels are far darker than the bright ones, as air is."""
    dark, bright = np.percentile(values, [25, 75])
    return bool(dark < BACKGROUND * bright)


def _plausible(mask: np.ndarray) -> bool:
    return bool(SMALLEST <= mask.mean() <= LARGEST)


def _histogram_mask(mean: np.ndarray) -> np.ndarray:
    """Split the histogram, and open the mask as far as it keeps most of the brain.

    Opening cuts off skull and eyes; of a brain of a few coarse voxels it takes the surface.
    """
    whole = _epi_mask(mean, opening=0)
    for opening in (2, 1):
        mask = _epi_mask(mean, opening)
        if mask.sum() >= MOST_OPENED * whole.sum():
            return mask
    return whole


def _epi_mask(mean: np.ndarray, opening: int) -> np.ndarray:
    """Split the histogram as nilearn does; an empty mask where it cannot be split."""
    from nilearn.masking import compute_epi_mask

    image = nib.Nifti1Image(mean.astype(np.float32), np.eye(4))
    stripped = float((mean == 0).mean()) > STRIPPED_SHARE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Voxels outside a masked brain are 0 and would spoil the histogram.
            computed = compute_epi_mask(image, exclude_zeros=stripped, opening=opening)
    except (ValueError, TypeError, IndexError):
        return np.zeros(mean.shape, dtype=bool)
    return np.asarray(computed.dataobj) > 0


def _otsu_mask(mean: np.ndarray) -> np.ndarray:
    """Split the intensities where the variance between both classes is largest."""
    counts, edges = np.histogram(mean, bins=256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    low = sums[:-1] / np.maximum(below, 1)
    high = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    threshold = edges[1:-1][np.argmax(below * above * np.square(low - high))]
    return np.asarray(mean > threshold)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected part of a mask, with its holes filled."""
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    return np.asarray(ndimage.binary_fill_holes(mask))
