"""Draw head motion: slow, with the breath, and in jerks; what is left of it in the images.

Images in a standard space are realigned. What motion leaves in them (interpolation, changes of
the field, history of magnetisation) goes with displacement times the gradient of intensity, and
follows a jerk for a few volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fmrisynth.phantom.anatomy import Head
from fmrisynth.phantom.fields import weighted_sum
from fmrisynth.phantom.files import write_json, write_table
from fmrisynth.phantom.noise import autoregressive
from fmrisynth.phantom.physiology import Physiology

__all__ = [
    "MOTION_COLUMNS",
    "Motion",
    "draw_motion",
    "motion_signal",
    "write_motion",
]

MOTION_COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")

_KINDS = {"trans": ("Translation", "mm"), "rot": ("Rotation", "rad")}
_DISPLACEMENT = {
    "Description": "Sum of the absolute displacements from volume to volume, of rotations on a "
    "sphere of 50 mm",
    "Units": "mm",
}
_HEAD_RADIUS = 50.0  # mm
_SLOW_TIME = 40.0  # s
_ROTATION = 0.012  # rad per mm of translation; 0.7° per mm
_BREATH = 0.35  # of the slow motion, along the phase encoding (y)
_JERK = 8.0  # median length of a jerk, in units of the slow motion
_JERK_SD = 1.0  # of its logarithm
_LOST = 0.25  # percent of intensity per mm of a jerk
_RECOVERY = 0.45  # share of that which is left a volume later
_LONGEST = 2.0  # mm
_CENTRE = np.array([[0.0], [-20.0], [15.0]])  # of rotation, mm


@dataclass(frozen=True)
class Motion:
    """The displacement of the head in one run.

    Attributes
    ----------
    parameters : ndarray of shape (T, 6)
        Translation in mm and rotation in rad, as named in `MOTION_COLUMNS`.
    lost : ndarray of shape (T,)
        Percent of the intensity that is lost after jerks.
    """

    parameters: np.ndarray
    lost: np.ndarray


def draw_motion(
    physiology: Physiology,
    n_volumes: int,
    t_r: float,
    breath: np.ndarray,
    rng: np.random.Generator,
) -> Motion:
    """Draw the motion of one run.

    Parameters
    ----------
    physiology : Physiology
        How much the participant moves.
    n_volumes : int
        Number of volumes.
    t_r : float
        Repetition time in s.
    breath : ndarray of shape (T,)
        Course of breathing, of variance about 1/2.
    rng : numpy.random.Generator
        Draws the rest.
    """
    scale = physiology.motion * np.array([0.6, 0.8, 1.2, *[_ROTATION] * 3])
    slow = autoregressive(rng.standard_normal((n_volumes, 6)), np.exp(-t_r / _SLOW_TIME))
    parameters = slow * scale
    parameters[:, 1] += _BREATH * physiology.motion * breath
    lost = np.zeros(n_volumes)
    count = rng.poisson(physiology.jerk_rate * n_volumes * t_r / 60.0)
    for volume in np.sort(rng.integers(0, n_volumes, count)):
        direction = rng.standard_normal(6)
        length = physiology.motion * _JERK * np.exp(_JERK_SD * rng.standard_normal())
        length = min(length, _LONGEST)
        jerk = length * direction / np.linalg.norm(direction[:3]) * ([1.0] * 3 + [_ROTATION] * 3)
        last = min(volume + 1 + int(rng.random() < 0.4), n_volumes)
        parameters[volume:last] += jerk
        after = np.arange(n_volumes - volume)
        lost[volume:] += _LOST * length * _RECOVERY**after
    return Motion(parameters, lost)


def motion_signal(motion: Motion, head: Head) -> np.ndarray:
    """Return what motion adds to the signal, (T, V), in the units of the mean image."""
    arm = head.position - _CENTRE.astype(np.float32)
    # (ω × r) · ∇S = ω · (r × ∇S)
    turning = np.cross(arm, head.gradient, axis=0)
    maps = np.concatenate([head.gradient, turning, -0.01 * head.mean[None]])
    return weighted_sum(np.column_stack([motion.parameters, motion.lost]), maps)


def write_motion(folder: Path, stem: str, parameters: np.ndarray, origin: str) -> None:
    """Write head motion as fMRIPrep does, as a table of confounds with its sidecar.

    Parameters
    ----------
    folder : Path
        Folder of the derivatives of a run.
    stem : str
        Start of the file name, without space and resolution.
    parameters : ndarray of shape (T, 6)
        In the order of `MOTION_COLUMNS`.
    origin : str
        Where they are from, for the sidecar.
    """
    table = pd.DataFrame(parameters, columns=list(MOTION_COLUMNS))
    steps = table.diff().abs().to_numpy()
    distances = steps[:, :3].sum(axis=1) + _HEAD_RADIUS * steps[:, 3:].sum(axis=1)
    table["framewise_displacement"] = distances
    sidecar = {
        name: {
            "Description": f"{_KINDS[name[:-2]][0]} of the head, axis {name[-1]}: {origin}",
            "Units": _KINDS[name[:-2]][1],
        }
        for name in MOTION_COLUMNS
    } | {"framewise_displacement": _DISPLACEMENT}
    path = folder / f"{stem}_desc-confounds_timeseries.tsv"
    write_table(path, table.round(6))
    write_json(path.with_suffix(".json"), sidecar)
