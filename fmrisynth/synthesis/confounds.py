"""Compute the confounds of a synthetic run, named and defined as fMRIPrep's.

Definitions: framewise displacement, Power et al. (NeuroImage 59, 2142, 2012); DVARS and its
standardised form, Nichols (arXiv:1704.01469); relative RMS displacement, Jenkinson (FMRIB
TR99MJ1, 1999); aCompCor, Behzadi et al. (NeuroImage 37, 90, 2007); derivatives and powers,
Satterthwaite et al. (NeuroImage 64, 240, 2013).

Legend: T volumes, V voxels of a tissue, J components.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from nilearn.glm.first_level import make_first_level_design_matrix

from fmrisynth.bids.checks import find_outlying_volumes
from fmrisynth.bids.confounds import MOTION
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.pieces import brain_median, brain_series
from fmrisynth.model.motion import HEAD_RADIUS
from fmrisynth.preprocess.tissues import template_tissue_masks, tissue_masks

__all__ = [
    "confounds_of",
    "describe_confounds",
    "framewise_displacement",
    "measure_confounds",
]

COSINE_HIGH_PASS = 1 / 128  # Hz
EXPLAINED = 0.5  # share of a tissue's variance that its components explain
MOST_COMPONENTS = 50
RMS_RADIUS = 80.0  # mm
LARGEST_FD, LARGEST_DVARS = 0.5, 1.5  # mm; standardised; beyond them a volume is an outlier
NORMAL_MEDIAN = 1000.0  # to which intensities are scaled before DVARS
VOXELS_AT_ONCE = 256  # of float64 that fit into the cache
_SIGNALS = {"csf": "CSF", "white_matter": "WM"}


def confounds_of(
    run: Run, data: np.ndarray, mask: np.ndarray, motion: np.ndarray, *, own: bool
) -> tuple[str, dict[str, Any]]:
    """Compute the confounds of a synthetic run, as the content of its table and its sidecar.

    Parameters
    ----------
    run : Run
        The run that is imitated.
    data : ndarray of shape (X, Y, Z, T)
        The synthetic volumes.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels.
    motion : ndarray of shape (T, 6)
        As in `measure_confounds`.
    own : bool
        Whether the tissues are the participant's own, and not the template's.
    """
    tissues = (tissue_masks if own else template_tissue_masks)(run, mask)
    table, sidecar = measure_confounds(data, mask, tissues, motion, run.t_r)
    content = table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    return content, sidecar


def measure_confounds(
    data: np.ndarray,
    mask: np.ndarray,
    tissues: Mapping[str, np.ndarray],
    motion: np.ndarray,
    t_r: float,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compute the table of confounds of a run, and its sidecar.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z, T)
        Intensities.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels.
    tissues : mapping of str to ndarray of shape (X, Y, Z), bool
        ``"CSF"`` and ``"WM"``; without one its columns are left out.
    motion : ndarray of shape (T, 6)
        Translations (mm) and rotations (rad), in the order of `MOTION`.
    t_r : float
        Repetition time (s).

    Returns
    -------
    table : DataFrame
        A row for each volume; NaN where a difference has no volume before it.
    sidecar : dict
        Description of each column; of the components as fMRIPrep has them.
    """
    cosines = _cosines(data.shape[3], t_r)
    columns: dict[str, np.ndarray] = {}
    for name, signal in _tissue_signals(data, mask, tissues).items():
        columns |= _expanded(name, signal)
    std_dvars, dvars = _dvars(data, mask)
    displacement = framewise_displacement(motion)
    columns |= {
        "std_dvars": std_dvars,
        "dvars": dvars,
        "framewise_displacement": displacement,
        "rmsd": _relative_rms(motion),
    }
    components, sidecar = _anatomical_components(data, tissues, cosines)
    columns |= components
    columns |= {f"cosine{k:02d}": cosine for k, cosine in enumerate(cosines.T)}
    columns |= _first_volumes(data, mask)
    for name, values in zip(MOTION, motion.T, strict=True):
        columns |= _expanded(name, values)
    moved = (np.nan_to_num(displacement) > LARGEST_FD) | (np.nan_to_num(std_dvars) > LARGEST_DVARS)
    columns |= _indicators("motion_outlier", np.flatnonzero(moved), len(moved))
    table = pd.DataFrame(columns)
    return table, describe_confounds(table) | sidecar


def _cosines(n_volumes: int, t_r: float) -> np.ndarray:
    """Compute the cosine basis of slow drift, (T, K)."""
    frame_times = np.arange(n_volumes) * t_r
    design = make_first_level_design_matrix(
        frame_times, drift_model="cosine", high_pass=COSINE_HIGH_PASS
    )
    return np.asarray(design.drop(columns="constant").to_numpy())


def _tissue_signals(
    data: np.ndarray, mask: np.ndarray, tissues: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Average intensities over the brain and its tissues, in the order of fMRIPrep's columns."""
    signals = {
        name: data[tissues[tissue]].mean(axis=0, dtype=np.float64)
        for name, tissue in _SIGNALS.items()
        if tissue in tissues
    }
    sums = [series.sum(axis=0, dtype=np.float64) for _, series in brain_series(data, mask)]
    signals["global_signal"] = np.sum(sums, axis=0) / np.count_nonzero(mask)
    if len(tissues) == 2:
        both = tissues["CSF"] | tissues["WM"]
        signals["csf_wm"] = data[both].mean(axis=0, dtype=np.float64)
    return signals


def _expanded(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return a signal with its derivative and the squares of both."""
    derivative = np.concatenate([[np.nan], np.diff(values)])
    columns = {
        name: values,
        f"{name}_derivative1": derivative,
        f"{name}_derivative1_power2": derivative**2,
        f"{name}_power2": values**2,
    }
    return {name: values} if name == "csf_wm" else columns


def _dvars(data: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute standardised and plain DVARS of intensities; NaN for the first volume."""
    median, n_voxels = brain_median(data, mask), np.count_nonzero(mask)
    factor = NORMAL_MEDIAN / median if median else 1.0
    tiny = np.finfo(float).tiny
    energy, expected = np.zeros(data.shape[3] - 1), 0.0
    for _, piece in brain_series(data, mask, VOXELS_AT_ONCE):
        low, high = _quartiles(piece)
        spread = (high - low) * (factor / 1.349)
        scaled = piece.astype(np.float64) * factor
        centred = scaled - scaled.mean(axis=1, keepdims=True)
        power = np.maximum(np.einsum("vt,vt->v", centred, centred), tiny)
        lag1 = np.einsum("vt,vt->v", centred[:, 1:], centred[:, :-1]) / power
        expected += float((np.sqrt(2 * np.maximum(1 - lag1, 0)) * spread).sum())
        steps = np.diff(scaled, axis=1)
        energy += np.einsum("vt,vt->t", steps, steps)
    plain = np.sqrt(energy / n_voxels)
    standardised = plain / max(expected / n_voxels, tiny)
    return np.concatenate([[np.nan], standardised]), np.concatenate([[np.nan], plain])


def _quartiles(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the quartiles of each row as numpy's percentile does, by a sort, which is faster."""
    ordered = np.sort(series, axis=1)
    last = series.shape[1] - 1
    quartiles = []
    for place in (0.25 * last, 0.75 * last):
        below = int(place)
        low = ordered[:, below].astype(np.float64)
        quartiles.append(low + (place - below) * (ordered[:, min(below + 1, last)] - low))
    return quartiles[0], quartiles[1]


def framewise_displacement(motion: np.ndarray) -> np.ndarray:
    """Compute framewise displacement (mm) of motion (T, 6); NaN for the first volume."""
    steps = np.abs(np.diff(motion, axis=0))
    total = steps[:, :3].sum(axis=1) + HEAD_RADIUS * steps[:, 3:].sum(axis=1)
    return np.concatenate([[np.nan], total])


def _relative_rms(motion: np.ndarray) -> np.ndarray:
    """Compute the root mean square displacement (mm) within the head from volume to volume."""
    affines = np.stack([_rigid(row) for row in motion])
    between = affines[1:] @ np.linalg.inv(affines[:-1]) - np.eye(4)
    rotation, shift = between[:, :3, :3], between[:, :3, 3]
    trace = np.einsum("tij,tij->t", rotation, rotation)
    rms = np.sqrt(RMS_RADIUS**2 / 5 * trace + np.square(shift).sum(axis=1))
    return np.concatenate([[np.nan], rms])


def _rigid(parameters: np.ndarray) -> np.ndarray:
    """Build the (4, 4) matrix of three translations (mm) and three rotations (rad)."""
    x, y, z = parameters[3:]
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_x @ about_y @ about_z
    matrix[:3, 3] = parameters[:3]
    return matrix


def _anatomical_components(
    data: np.ndarray, tissues: Mapping[str, np.ndarray], cosines: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Find the principal components of CSF, white matter and both (aCompCor)."""
    columns: dict[str, np.ndarray] = {}
    sidecar: dict[str, Any] = {}
    places = [("c", label, tissues[label]) for label in ("CSF",) if label in tissues]
    places += [("w", label, tissues[label]) for label in ("WM",) if label in tissues]
    if len(tissues) == 2:
        places.insert(0, ("a", "combined", tissues["CSF"] | tissues["WM"]))
    for prefix, label, where in places:
        vectors, singular = _principal_components(data[where], cosines)
        shares = np.square(singular) / np.square(singular).sum()
        for j, vector in enumerate(vectors.T):
            name = f"{prefix}_comp_cor_{j:02d}"
            columns[name] = vector
            sidecar[name] = {
                "Method": "aCompCor",
                "Mask": label,
                "Retained": True,
                "SingularValue": float(singular[j]),
                "VarianceExplained": float(shares[j]),
                "CumulativeVarianceExplained": float(shares[: j + 1].sum()),
            }
    return columns, sidecar


def _principal_components(series: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the leading components in time, (T, J), of (V, T) series, and all singular values."""
    n_volumes = series.shape[1]
    basis = np.linalg.qr(np.column_stack([np.ones(n_volumes), cosines]))[0]
    rest = series.astype(np.float64)
    rest = rest - (rest @ basis) @ basis.T
    rest /= np.maximum(rest.std(axis=1, keepdims=True), np.finfo(float).tiny)
    values, vectors = np.linalg.eigh(rest.T @ rest)
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    explained = np.cumsum(values) / max(values.sum(), np.finfo(float).tiny)
    count = min(int(np.searchsorted(explained, EXPLAINED)) + 1, MOST_COMPONENTS, len(series))
    # the sign of a component is arbitrary; one rule for all
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return (vectors * signs)[:, :count], np.sqrt(values)


def _first_volumes(data: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Mark the volumes before the steady state, which a synthetic run seldom has."""
    n_volumes = data.shape[3]
    outlying = find_outlying_volumes(data, mask, np.zeros(n_volumes, dtype=bool))
    count = int(np.argmin(outlying)) if not outlying.all() else 0
    return _indicators("non_steady_state_outlier", np.arange(count), n_volumes)


def _indicators(name: str, volumes: np.ndarray, n_volumes: int) -> dict[str, np.ndarray]:
    """Return a column for each of some volumes, 1 there and 0 elsewhere."""
    return {
        f"{name}{k:02d}": (np.arange(n_volumes) == volume).astype(int)
        for k, volume in enumerate(volumes)
    }


_DESCRIPTIONS = {
    "csf": "Mean signal of cerebrospinal fluid.",
    "white_matter": "Mean signal of white matter.",
    "global_signal": "Mean signal of the brain.",
    "csf_wm": "Mean signal of cerebrospinal fluid and white matter together.",
    "std_dvars": "DVARS, standardised by its expectation.",
    "dvars": "RMS of the voxels' differences to the volume before, at a median intensity of 1000.",
    "framewise_displacement": "Framewise displacement (Power et al., 2012), mm.",
    "rmsd": "Relative root mean square displacement (Jenkinson, 1999), mm.",
    "cosine": "Discrete cosine basis of slow drift (128 s).",
    "non_steady_state_outlier": "1 in one volume before the steady state.",
    "motion_outlier": (
        f"1 in one volume with a framewise displacement above {LARGEST_FD} mm or standardised "
        f"DVARS above {LARGEST_DVARS}."
    ),
    "trans": "Translation, mm. Drawn, not estimated: no head has moved in this run.",
    "rot": "Rotation, rad. Drawn, not estimated: no head has moved in this run.",
}


def describe_confounds(table: pd.DataFrame) -> dict[str, Any]:
    """Describe the columns of a table of confounds."""
    described: dict[str, Any] = {}
    for column in table.columns:
        name = str(column)
        base = max((key for key in _DESCRIPTIONS if name.startswith(key)), key=len, default="")
        text = _DESCRIPTIONS.get(base, "")
        if "_derivative1" in name:
            text += " Difference to the volume before."
        if name.endswith("_power2"):
            text += " Squared."
        if text:
            described[name] = {"Description": text}
    return described
