"""Split a run into carrier and residual, and merge a residual with a carrier.

A run is split as

    bold(v, t) = mean(v) · (1 + (drift(v, t) + residual(v, t)) / 100)

The carrier holds the voxelwise temporal mean, the slow drift (cosine basis up
to the high-pass frequency) and the noise level. The model learns and generates
the residual, in percent signal change against the run's own mean.

Legend: X Y Z voxels, T frames, P voxels of the brain, K columns of the drift basis.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from nilearn.glm.first_level import make_first_level_design_matrix

from fmrisynth.bids.images import Bold
from fmrisynth.bids.pieces import brain_pieces, brain_series

__all__ = [
    "Carrier",
    "drift_basis",
    "least_squares",
    "merge",
    "merge_pieces",
    "noise_sd",
    "orthonormal",
    "remove_drift",
    "removed_basis",
    "split",
]

RESIDUAL_LIMIT = 30.0  # %, beyond it a voxel's excursion is an edge artefact, not signal


@dataclass(frozen=True)
class Carrier:
    """The part of a run that is not learned: anatomy, slow drift and noise level.

    Attributes
    ----------
    mean : ndarray of shape (X, Y, Z), float32
        Temporal mean in the run's own units.
    drift : ndarray of shape (K, X, Y, Z), float32
        Coefficients of the cosine basis (%).
    noise_sd : ndarray of shape (X, Y, Z), float32
        Temporal standard deviation (%) of the residual without evoked responses.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels.
    affine : ndarray of shape (4, 4)
        Voxel indices to mm.
    t_r : float
        Repetition time (s).
    """

    mean: np.ndarray
    drift: np.ndarray
    noise_sd: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    t_r: float


def drift_basis(n_volumes: int, t_r: float, high_pass: float) -> np.ndarray:
    """Compute an orthonormal cosine basis of the slow drift, without the constant.

    Parameters
    ----------
    n_volumes : int
        Length T of the run.
    t_r : float
        Repetition time (s).
    high_pass : float
        Highest drift frequency (Hz).

    Returns
    -------
    ndarray of shape (T, K)
        K may be 0 for a short run.
    """
    frame_times = np.arange(n_volumes) * t_r
    design = make_first_level_design_matrix(frame_times, drift_model="cosine", high_pass=high_pass)
    drifts = design.drop(columns="constant").to_numpy()
    if drifts.shape[1] == 0:
        return drifts
    return np.linalg.qr(drifts - drifts.mean(0))[0]


def removed_basis(n_volumes: int, t_r: float, high_pass: float | None) -> np.ndarray:
    """Compute the basis (T, 1 + K) of all that `split` removes: the constant and the drift.

    Whole volumes keep theirs: without a highest drift frequency the basis is empty, (T, 0).
    """
    if high_pass is None:
        return np.zeros((n_volumes, 0))
    constant = np.full((n_volumes, 1), n_volumes**-0.5)
    return np.concatenate([constant, drift_basis(n_volumes, t_r, high_pass)], axis=1)


def remove_drift(series: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Remove the mean and the drift from time series (T, ...)."""
    flat = series.reshape(len(series), -1)
    flat = flat - flat.mean(0)
    flat = flat - basis @ (basis.T @ flat)
    return flat.reshape(series.shape)


def split(
    bold: Bold, high_pass: float, evoked: np.ndarray | None = None, *, overwrite: bool = False
) -> tuple[Carrier, np.ndarray]:
    """Split a run into its carrier and its residual.

    Parameters
    ----------
    bold : Bold
        The run.
    high_pass : float
        Highest drift frequency (Hz).
    evoked : ndarray of shape (T, K) or None
        Regressors of the run's responses without mean and drift; what they explain does
        not count as noise.
    overwrite : bool
        Whether the residual takes the place of the run, which is zero outside of its mask.

    Returns
    -------
    carrier : Carrier
        Mean, drift and noise level. Its mask leaves out voxels whose mean is under
        5 % of the brain's median (vessels, edges, other units), since a percentage
        of them means nothing.
    residual : ndarray of shape (X, Y, Z, T), float32
        Percent signal change, zero outside the carrier's mask.
    """
    mean = np.zeros(bold.mask.shape, np.float32)
    for voxels, series in brain_series(bold.data, bold.mask):
        mean.ravel()[voxels] = series.mean(axis=1)  # outlying volumes are interpolated
    brain = bold.mask & (mean > 0.05 * np.median(mean[bold.mask]))
    n_volumes = bold.data.shape[3]
    basis = drift_basis(n_volumes, bold.t_r, high_pass).astype(np.float32)
    # interpolated volumes have less noise than others
    kept = slice(None) if bold.outlying is None else ~bold.outlying
    explained = None if evoked is None else orthonormal(evoked[kept], np.dtype(np.float32))
    if overwrite:
        residual = bold.data
        residual[bold.mask & ~brain] = 0
    else:
        residual = np.zeros(bold.data.shape, np.float32)
    drift = np.zeros((basis.shape[1], *brain.shape), np.float32)
    deviation = np.zeros(brain.shape, np.float32)
    left, drifts = residual.reshape(-1, n_volumes), drift.reshape(len(drift), brain.size)
    for voxels, own in brain_series(bold.data, brain):
        series = own.T / mean.ravel()[voxels]  # T P
        series *= 100
        series -= 100
        coefficients = basis.T @ series  # K P
        series -= basis @ coefficients
        np.clip(series, -RESIDUAL_LIMIT, RESIDUAL_LIMIT, out=series)
        left[voxels] = series.T
        drifts[:, voxels] = coefficients
        deviation.ravel()[voxels] = noise_sd(series[kept], explained)
    mean = np.where(brain, mean, 0).astype(np.float32)
    return Carrier(mean, drift, deviation, brain, bold.affine, bold.t_r), residual


def least_squares(regressors: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, int]:
    """Regress series on those regressors that are not zero.

    Parameters
    ----------
    regressors : ndarray of shape (T, K)
        May be linearly dependent.
    series : ndarray of shape (T, P)
        Time series.

    Returns
    -------
    residual : ndarray of shape (T, P)
        What the regressors leave.
    used : int
        Degrees of freedom that they took.
    """
    basis = orthonormal(regressors, series.dtype)
    return (series - basis @ (basis.T @ series) if basis.shape[1] else series), basis.shape[1]


def orthonormal(regressors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Compute an orthonormal basis of regressors (T, K), of which some may be zero.

    Returns
    -------
    ndarray of shape (T, B)
        B is the rank, which may be 0.
    """
    present = regressors[:, np.abs(regressors).sum(0) > 1e-6]
    if not present.shape[1]:
        return np.zeros((len(regressors), 0), dtype)
    basis, scale, _ = np.linalg.svd(present, full_matrices=False)
    return np.asarray(basis[:, scale > 1e-6 * scale[0]].astype(dtype))


def noise_sd(series: np.ndarray, explained: np.ndarray | None) -> np.ndarray:
    """Compute the standard deviation of what a basis leaves of time series.

    Parameters
    ----------
    series : ndarray of shape (T, P)
        Without mean and drift.
    explained : ndarray of shape (T, B) or None
        Of `orthonormal`; None for the standard deviation about the mean.

    Returns
    -------
    ndarray of shape (P,)
        In the units of the series.
    """
    if explained is None:
        deviation: np.ndarray = series.std(axis=0)
        return deviation
    rest = series - explained @ (explained.T @ series)
    return np.sqrt(np.square(rest).sum(0) / max(1, len(rest) - explained.shape[1]))


def merge(carrier: Carrier, residual: np.ndarray, high_pass: float) -> np.ndarray:
    """Merge a residual with a carrier on its grid; the inverse of `split`.

    Parameters
    ----------
    carrier : Carrier
        Its drift is added where the residual has the carrier's length, else left out.
    residual : ndarray of shape (X, Y, Z, T)
        Percent signal change.
    high_pass : float
        The frequency that the carrier was split with (Hz).

    Returns
    -------
    ndarray of shape (X, Y, Z, T), float32
        In the units of the carrier's run, zero outside the brain.
    """
    pieces = (
        series.astype(np.float32, copy=False) for _, series in brain_series(residual, carrier.mask)
    )
    return merge_pieces(carrier, pieces, residual.shape[3], high_pass)


def merge_pieces(
    carrier: Carrier, pieces: Iterable[np.ndarray], n_volumes: int, high_pass: float
) -> np.ndarray:
    """Merge a residual as `merge` does, which comes piece by piece: a run is as large as memory.

    Parameters
    ----------
    carrier, high_pass
        As for `merge`.
    pieces : iterable of ndarray of shape (P, T), float32
        Residual of the voxels of each of `brain_pieces`.
    n_volumes : int
        Length T.
    """
    basis = drift_basis(n_volumes, carrier.t_r, high_pass).astype(np.float32)
    drift = carrier.drift.reshape(len(carrier.drift), carrier.mask.size)
    out = np.zeros((*carrier.mask.shape, n_volumes), np.float32)
    merged = out.reshape(-1, n_volumes)
    for voxels, series in zip(brain_pieces(carrier.mask), pieces, strict=True):
        drifting = basis.shape[1] == len(drift)
        change = (series + drift[:, voxels].T @ basis.T if drifting else series) / 100
        change += 1
        change *= carrier.mean.ravel()[voxels, None]
        merged[voxels] = change
    return out
