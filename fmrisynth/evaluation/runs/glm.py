"""Fit the first-level model of one run: effects in percent signal change, and residuals.

Legend: V voxels of the run's mask, T volumes, K trial types.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from nilearn.glm.first_level import make_first_level_design_matrix

from fmrisynth.bids.pieces import slices

__all__ = ["GlmSettings", "RunModel", "design_matrix", "fit_run", "percent_signal_change"]

_LEAST_OWN_SHARE = 1e-3
"""Norm of a regressor's own part, relative to the regressor, below which it is a sum of others."""


@dataclass(frozen=True)
class GlmSettings:
    """Settings of the first-level model.

    Attributes
    ----------
    hrf_model : str
        Haemodynamic response of nilearn (``"glover"``, ``"spm"``, …).
    high_pass : float
        Cut-off of the cosine drift, in Hz.
    noise_model : str
        ``"ar1"`` or ``"ols"``, as in nilearn.
    bins : int
        Number of classes of the AR(1) coefficient. The effects hardly depend
        on it and the time is proportional to it.
    trial_types : tuple of (str, str) or None
        Tasks and trial types that are modelled; events of others are baseline. None for all.
    """

    hrf_model: str = "glover"
    high_pass: float = 1.0 / 128.0
    noise_model: str = "ar1"
    bins: int = 25
    trial_types: tuple[tuple[str, str], ...] | None = None

    def modelled(self, events: pd.DataFrame, task: str) -> pd.DataFrame:
        """Return the events of the trial types that are modelled."""
        if self.trial_types is None:
            return events
        names = [name for own, name in self.trial_types if own == task]
        return events[events["trial_type"].isin(names)]


@dataclass(frozen=True)
class RunModel:
    """A fitted first-level model.

    Attributes
    ----------
    trial_types : tuple of str
        Names of the ``K`` trial types that the run can tell anything about.
    effects : ndarray of shape (K, V)
        Effect of each trial type, in percent signal change.
    regressors : ndarray of shape (T, K)
        Predicted response of each trial type, without drift and mean.
    detrended : ndarray of shape (V, T)
        Signal without drift and mean, in percent signal change.
    dependent : tuple of str
        Trial types without an effect, since others add up to them.
    """

    trial_types: tuple[str, ...]
    effects: np.ndarray
    regressors: np.ndarray
    detrended: np.ndarray
    dependent: tuple[str, ...] = ()


def percent_signal_change(data: np.ndarray) -> np.ndarray:
    """Express each voxel as percent change against its own temporal mean.

    Parameters
    ----------
    data : ndarray of shape (V, T)
        Signal in arbitrary positive units.

    Returns
    -------
    ndarray of shape (V, T)
        ``100 · (data / mean − 1)``, float32.
    """
    change = np.empty(data.shape, np.float32)
    for part in slices(len(data)):
        series = data[part]
        mean = series.mean(axis=1, keepdims=True, dtype=np.float64)
        change[part] = 100.0 * (series / mean - 1.0)
    return change


def design_matrix(
    events: pd.DataFrame, n_volumes: int, t_r: float, start_time: float, settings: GlmSettings
) -> pd.DataFrame:
    """Build the design matrix of a run: one column per trial type, cosine drift, constant.

    Where trial types are linearly dependent ("trial" beside the conditions of all
    trials), effects cannot be told apart; those with the most events are left out.

    Parameters
    ----------
    events : DataFrame
        Columns ``onset``, ``duration`` (s) and ``trial_type``.
    n_volumes : int
        Number of volumes ``T``.
    t_r, start_time : float
        Repetition time and time of the first sample, in s.
    settings : GlmSettings
        Model settings.

    Returns
    -------
    DataFrame, shape (T, K + D)
        Drift columns are named ``drift_*`` and ``constant``. ``attrs`` has the
        number of trial types and the ``dependent`` ones that are left out.
    """
    frame_times = start_time + t_r * np.arange(n_volumes)
    # Any name may be a trial type, "constant" and "drift_1" too: number them for nilearn.
    names = sorted(set(events["trial_type"]))
    codes = {name: f"trial_type_{index:04d}" for index, name in enumerate(names)}
    coded = events[["onset", "duration"]].assign(trial_type=events["trial_type"].map(codes))
    with warnings.catch_warnings():
        # nilearn warns of events outside the run; `read_events` has judged those already.
        warnings.simplefilter("ignore")
        design = make_first_level_design_matrix(
            frame_times,
            coded,
            hrf_model=settings.hrf_model,
            drift_model="cosine",
            high_pass=settings.high_pass,
        )
    present = [codes[n] for n in names if np.ptp(design[codes[n]].to_numpy()) > 1e-6]
    drift = [c for c in design.columns if not c.startswith("trial_type_")]
    counts = coded["trial_type"].value_counts()
    independent = _independent(design, drift, sorted(present, key=lambda c: (counts[c], c)))
    keep = [code for code in present if code in independent]
    decoded = {code: name for name, code in codes.items()}
    matrix = design[keep + drift].copy()
    matrix.columns = pd.Index([decoded[c] for c in keep] + drift)
    matrix.attrs["n_trial_types"] = len(keep)
    matrix.attrs["dependent"] = tuple(decoded[c] for c in present if c not in independent)
    return matrix


def _independent(design: pd.DataFrame, drift: list[str], columns: list[str]) -> set[str]:
    """Choose columns, in order, that are no linear combination of the drift and those before."""
    basis = np.linalg.qr(design[drift].to_numpy(dtype=np.float64))[0]
    chosen = set()
    for column in columns:
        values = design[column].to_numpy(dtype=np.float64)
        rest = values - basis @ (basis.T @ values)
        rest -= basis @ (basis.T @ rest)  # again, against rounding
        centred = np.linalg.norm(values - values.mean())
        if np.linalg.norm(rest) > _LEAST_OWN_SHARE * centred:
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
            chosen.add(column)
    return chosen


def fit_run(data: np.ndarray, design: pd.DataFrame, settings: GlmSettings) -> RunModel:
    """Fit the first-level model to one run.

    Parameters
    ----------
    data : ndarray of shape (V, T)
        Signal in scanner units; every voxel has a positive mean.
    design : DataFrame, shape (T, K + D)
        From `design_matrix`.
    settings : GlmSettings
        Model settings.

    Returns
    -------
    RunModel

        Of no trial types where no event has a response inside the run, as at rest.
    """
    n_types = int(design.attrs["n_trial_types"])
    matrix = design.to_numpy(dtype=np.float64)
    signal = percent_signal_change(data)
    effects = _coefficients(signal, matrix, settings)[:n_types]
    basis, _ = np.linalg.qr(matrix[:, n_types:])
    basis = basis.astype(np.float32)
    detrended = signal - (signal @ basis) @ basis.T
    regressors = matrix[:, :n_types] - basis @ (basis.T @ matrix[:, :n_types])
    names = tuple(str(c) for c in design.columns[:n_types])
    return RunModel(names, effects, regressors, detrended, design.attrs.get("dependent", ()))


def _coefficients(signal: np.ndarray, matrix: np.ndarray, settings: GlmSettings) -> np.ndarray:
    """Fit as nilearn's ``run_glm`` does: (K + D, V), float32.

    ``run_glm`` finds the AR(1) coefficient voxel by voxel in Python, and whitens every series;
    here the pseudoinverse of each class of coefficients is whitened in place of its series.
    """
    ordinary = np.linalg.pinv(matrix)  # (K + D, T)
    if settings.noise_model == "ols":
        return (ordinary @ signal.T).astype(np.float32)
    rho = np.empty(len(signal))
    for voxels in slices(len(signal)):
        series = signal[voxels].astype(np.float64)
        rho[voxels] = _lag_one(series - (series @ ordinary.T) @ matrix.T)
    labels, classes = np.unique(
        (rho * settings.bins).astype(int),  # towards zero, as in nilearn
        return_inverse=True,
    )
    coefficients = np.empty((matrix.shape[1], len(signal)), np.float32)
    for label, estimator in enumerate(_whitened_pinv(matrix, labels / settings.bins)):
        members = np.flatnonzero(classes == label)
        coefficients[:, members] = estimator @ signal[members].T
    return coefficients


def _lag_one(residuals: np.ndarray) -> np.ndarray:
    """Estimate the AR(1) coefficient of residuals (V, T) as nilearn does: (V,)."""
    n_volumes = residuals.shape[1]
    power = np.einsum("vt,vt->v", residuals, residuals) / n_volumes
    lagged = np.einsum("vt,vt->v", residuals[:, 1:], residuals[:, :-1]) / (n_volumes - 1)
    return np.clip(lagged / np.where(power > 0, power, 1.0), -0.95, 0.95)


def _whitened_pinv(matrix: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Compute from a design (T, K + D) what gives effects of series at each rho: (C, K + D, T)."""
    step = rho[:, None, None]
    whitened = np.repeat(matrix[None], len(rho), axis=0)
    whitened[:, 1:] -= step * matrix[:-1]
    estimators = np.linalg.pinv(whitened)
    return np.concatenate(
        [estimators[..., :-1] - step * estimators[..., 1:], estimators[..., -1:]], axis=-1
    )
