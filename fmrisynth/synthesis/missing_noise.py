"""Compute how much noise the decoder leaves out of a run, voxel by voxel.

What is drawn in a run of some dozen volumes is louder or quieter than expected, by chance; and
the level that is wanted at a voxel can be lower than what is expected to be decoded there. A voxel
cannot have less than it has: its neighbours have the less of decoder noise, so that the level
of a region is right.

Legend: X Y Z voxels of the run, P of them in the brain, N frames, K regressors.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from fmrisynth.bids.pieces import brain_pieces
from fmrisynth.preprocess.carrier import noise_sd, orthonormal
from fmrisynth.preprocess.smoothness import FWHM_PER_SIGMA

__all__ = ["missing_sd", "temporal_sd"]

REGION = 20.0  # mm FWHM, over which the level is right
NEWTON_STEPS = 2  # after which a region's mean is within half a percent, where it can be reached
LEAST = 0.5  # of the autoencoder's error, which every voxel has


def temporal_sd(series: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """Compute the standard deviation of what evoked responses leave, as `split` does.

    Parameters
    ----------
    series : ndarray of shape (N, P)
        Without mean and drift.
    regressors : ndarray of shape (N, K)
        Of the evoked responses, without mean and drift.

    Returns
    -------
    ndarray of shape (P,)
        float32.
    """
    explained = orthonormal(regressors, series.dtype)
    sd = np.zeros(series.shape[1], np.float32)
    for voxels in brain_pieces(np.ones(series.shape[1], bool)):
        sd[voxels] = noise_sd(series[:, voxels], explained)
    return sd


def missing_sd(
    wanted: np.ndarray,
    expected: np.ndarray,
    drawn: np.ndarray,
    error: np.ndarray,
    brain: np.ndarray,
    edges: np.ndarray,
) -> np.ndarray:
    """Compute the standard deviation of the noise that is to be added to what is decoded.

    Parameters
    ----------
    wanted : ndarray of shape (P,)
        Temporal standard deviation that the run is to have, %.
    expected, drawn : ndarray of shape (P,)
        That of what is decoded: as the model foretells it, and as it is in this run. The
        course of one run tells little of a single voxel, but the level of a region.
    error : ndarray of shape (P,)
        That of the autoencoder's error.
    brain : ndarray of shape (X, Y, Z), bool
        Voxels of the brain.
    edges : ndarray of shape (3,)
        Edges of a voxel, mm.

    Returns
    -------
    ndarray of shape (P,)
        At least half of the autoencoder's error. With it the voxels of a region have on average
        the standard deviation that is wanted, if that is not less.
    """
    sigma = REGION / FWHM_PER_SIGMA / edges

    def smooth(values: np.ndarray) -> np.ndarray:
        field = np.zeros(brain.shape, np.float32)
        field[brain] = values
        return np.asarray(gaussian_filter(field, sigma, mode="constant")[brain])

    ratio = smooth(np.square(drawn)) / np.maximum(smooth(np.square(expected)), 1e-9)
    least = np.square(LEAST * error)
    present = ratio * np.square(expected) + least
    positive = np.maximum(np.square(wanted) - present, 0)
    share, aim = np.ones_like(wanted), smooth(wanted)
    for _ in range(NEWTON_STEPS):
        total = np.maximum(np.sqrt(present + share * positive), 1e-9)
        slope = np.maximum(smooth(positive / total) / 2, 1e-9)
        share = np.clip(share + (aim - smooth(total)) / slope, 0, 1)
    return np.sqrt(least + share * positive)
