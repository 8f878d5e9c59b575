"""Compute one-sample z-maps over participants (the second level).

Legend: P participants, V voxels of the common mask.
"""

from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.second_level import SecondLevelModel
from scipy import stats

__all__ = ["P_VALUE", "one_sample_t", "t_limit", "z_map"]

P_VALUE = 0.01
"""One-sided, uncorrected: where a voxel of a z-map counts as active."""


def z_map(maps: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Fit nilearn's second-level model to participants' maps of one condition.

    Parameters
    ----------
    maps : ndarray of shape (P, V)
        Effects; NaN rows are participants without the condition.
    mask : ndarray of bool of shape (X, Y, Z)
        Common mask with ``V`` voxels.
    affine : ndarray of shape (4, 4)
        Voxel to world, in mm.

    Returns
    -------
    ndarray of shape (V,)
        z of the mean effect over participants, float32; NaN with fewer than two.
    """
    usable = maps[np.isfinite(maps).all(axis=1)]
    if len(usable) < 2:
        return np.full(maps.shape[1], np.nan, dtype=np.float32)
    images = []
    for effect in usable:
        volume = np.zeros(mask.shape, dtype=np.float32)
        volume[mask] = effect
        images.append(nib.Nifti1Image(volume, affine))
    with warnings.catch_warnings():
        # A voxel outside of some run's mask can be 0 in every participant: its z becomes 0 below.
        warnings.simplefilter("ignore")
        model = SecondLevelModel(mask_img=nib.Nifti1Image(mask.astype(np.uint8), affine))
        model.fit(images, design_matrix=pd.DataFrame({"intercept": np.ones(len(images))}))
        z = model.compute_contrast("intercept", output_type="z_score")
    return np.nan_to_num(np.asarray(z.dataobj, dtype=np.float32)[mask])


def one_sample_t(maps: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """One-sample t over participants, as the second-level model has it.

    Parameters
    ----------
    maps : ndarray of shape (P, V)
        Effects without missing participants.
    counts : ndarray of int of shape (P,), optional
        How often each participant is drawn in a bootstrap sample.

    Returns
    -------
    ndarray of shape (V,)
        0 where participants do not differ at all; NaN with fewer than two.
    """
    weights = np.ones(len(maps)) if counts is None else counts.astype(float)
    n = weights.sum()
    if n < 2 or (weights > 0).sum() < 2:
        return np.full(maps.shape[1], np.nan)
    mean = weights @ maps / n
    variance = weights @ np.square(maps - mean.astype(maps.dtype)) / (n - 1)
    error = np.sqrt(variance / n)
    return np.where(error > 0, mean / np.where(error > 0, error, 1.0), 0.0)


def t_limit(n: int) -> float:
    """Give the t of ``n`` participants above which a voxel is active."""
    return float(stats.t.isf(P_VALUE, n - 1))
