"""Carrier and residual: what a run keeps for itself, and what the model learns.

A run is split as

    bold(v, t) = mean(v) · (1 + (drift(v, t) + residual(v, t)) / 100)

The carrier holds the voxelwise temporal mean, the slow drift (cosine basis up
to the high-pass frequency) and the noise level; the residual, in percent signal
change against the run's own mean, is what is learned and generated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nilearn.glm.first_level import make_first_level_design_matrix

from fmrisynth.bids.images import Bold

__all__ = ["Carrier", "drift_basis", "merge", "remove_drift", "removed_basis", "split"]

RESIDUAL_LIMIT = 30.0  # %, beyond it a voxel's excursion is an edge artefact, not signal


@dataclass(frozen=True)
class Carrier:
    """What a run keeps: anatomy, slow drift and noise level, on the run's own grid.

    Attributes
    ----------
    mean : numpy.ndarray
        (X, Y, Z) float32, temporal mean in the run's own units.
    drift : numpy.ndarray
        (K, X, Y, Z) float32, coefficients of the cosine basis, %.
    noise_sd : numpy.ndarray
        (X, Y, Z) float32, temporal standard deviation of the residual, %.
    mask : numpy.ndarray
        (X, Y, Z) bool, brain.
    affine : numpy.ndarray
        (4, 4).
    t_r : float
        Repetition time, s.
    """

    mean: np.ndarray
    drift: np.ndarray
    noise_sd: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    t_r: float


def drift_basis(n_volumes: int, t_r: float, high_pass: float) -> np.ndarray:
    """Orthonormal cosine basis below a frequency, without the constant.

    Parameters
    ----------
    n_volumes : int
        Length of the run.
    t_r : float
        Repetition time, s.
    high_pass : float
        Highest drift frequency, Hz.

    Returns
    -------
    numpy.ndarray
        (n_volumes, K); K may be 0 for a short run.
    """
    frame_times = np.arange(n_volumes) * t_r
    design = make_first_level_design_matrix(frame_times, drift_model="cosine", high_pass=high_pass)
    drifts = design.drop(columns="constant").to_numpy()
    if drifts.shape[1] == 0:
        return drifts
    return np.linalg.qr(drifts - drifts.mean(0))[0]


def removed_basis(n_volumes: int, t_r: float, high_pass: float) -> np.ndarray:
    """All that `split` takes out of a run: the constant and the drift, (n_volumes, 1 + K)."""
    constant = np.full((n_volumes, 1), n_volumes**-0.5)
    return np.concatenate([constant, drift_basis(n_volumes, t_r, high_pass)], axis=1)


def remove_drift(series: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Take the mean and the drift out of time series (T, ...)."""
    flat = series.reshape(len(series), -1)
    flat = flat - flat.mean(0)
    flat = flat - basis @ (basis.T @ flat)
    return flat.reshape(series.shape)


def split(bold: Bold, high_pass: float) -> tuple[Carrier, np.ndarray]:
    """Split a run into its carrier and its residual.

    Parameters
    ----------
    bold : Bold
        The run.
    high_pass : float
        Highest drift frequency, Hz.

    Returns
    -------
    carrier : Carrier
        Mean, drift, noise level.
    residual : numpy.ndarray
        (X, Y, Z, T) float32, % signal change, zero outside the mask. Voxels whose
        mean is under 5 % of the brain's median (vessels, edges, other units)
        leave the carrier's mask: a percentage of them means nothing.
    """
    mean = bold.data.mean(axis=3)
    brain = bold.mask & (mean > 0.05 * np.median(mean[bold.mask]))
    series = bold.data[brain].T / mean[brain] * 100 - 100  # T V
    basis = drift_basis(len(series), bold.t_r, high_pass).astype(np.float32)
    coefficients = basis.T @ series  # K V
    series = series - basis @ coefficients
    np.clip(series, -RESIDUAL_LIMIT, RESIDUAL_LIMIT, out=series)
    residual = np.zeros(bold.data.shape, np.float32)
    residual[brain] = series.T
    drift = np.zeros((len(coefficients), *brain.shape), np.float32)
    drift[:, brain] = coefficients
    noise_sd = np.zeros(brain.shape, np.float32)
    noise_sd[brain] = series.std(axis=0)
    mean = np.where(brain, mean, 0).astype(np.float32)
    return Carrier(mean, drift, noise_sd, brain, bold.affine, bold.t_r), residual


def merge(carrier: Carrier, residual: np.ndarray, high_pass: float) -> np.ndarray:
    """Re-apply a carrier to a residual on its grid; the inverse of `split`.

    Parameters
    ----------
    carrier : Carrier
        Its drift is used where the length fits its basis, else left out.
    residual : numpy.ndarray
        (X, Y, Z, T), % signal change.
    high_pass : float
        The frequency that the carrier was split with, Hz.

    Returns
    -------
    numpy.ndarray
        (X, Y, Z, T) float32 in the run's units, zero outside the brain.
    """
    brain = carrier.mask
    series = residual[brain].T.astype(np.float32)  # T V
    basis = drift_basis(len(series), carrier.t_r, high_pass).astype(np.float32)
    if basis.shape[1] == len(carrier.drift):
        series = series + basis @ carrier.drift[:, brain]
    out = np.zeros(residual.shape, np.float32)
    out[brain] = (carrier.mean[brain] * (1 + series / 100)).T
    return out
