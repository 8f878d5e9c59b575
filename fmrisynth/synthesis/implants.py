"""Add effects of known place and size to synthetic runs.

To the signal y of a voxel with the mean ȳ comes, in percent of that mean,

    y'(x, t) = y(x, t) + ȳ(x) / 100 · Σ_k (size_k + spread_k · z_pk) · shape_k(x) · regressor_k(t),

with the canonical response (Glover's, as nilearn scales it) to the events of a trial type,
later by the effect's delay, and a draw z of the standard normal distribution for each effect
and participant. A first-level model with that response recovers (size + spread · z) · shape.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from nilearn.glm.first_level import compute_regressor

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import load_volume
from fmrisynth.errors import DataError, NoInputError, UsageError
from fmrisynth.preprocess.grid import resample
from fmrisynth.runtime.randomness import keyed_generator

__all__ = ["Implant", "Implants", "read_implants", "unused_effects"]

HRF_MODEL = "glover"
_KEYS = {"trial_type", "task", "map", "sphere", "region", "size", "d", "spread", "delay"}


@dataclass(frozen=True, eq=False)
class Implant:
    """One effect.

    Attributes
    ----------
    trial_type : str
        Whose events evoke it.
    task : str or None
        Task of these events; None for every task.
    volume : ndarray of shape (X', Y', Z')
        Its shape in space, on a grid of its own; empty for a sphere.
    affine : ndarray of shape (4, 4)
        Voxel indices of `volume` to mm.
    centre : tuple of float
        Centre of the sphere (mm).
    radius : float
        Radius of the sphere (mm); 0 where there is none.
    binary : bool
        Whether `volume` holds a region, which has no values in between.
    size, spread : float
        Mean and standard deviation over participants (percent signal change).
    delay : float
        By which the response is later than the canonical one (s).
    """

    trial_type: str
    task: str | None
    size: float
    spread: float
    delay: float
    volume: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float = 0.0
    binary: bool = False

    def shape_on(self, run: Run) -> np.ndarray:
        """Return the effect's shape on the grid of a run, (X, Y, Z)."""
        if self.radius:
            places = apply_affine(run.affine, np.moveaxis(np.indices(run.shape), 0, -1))
            return (np.linalg.norm(places - self.centre, axis=-1) <= self.radius).astype(np.float32)
        how = "nearest" if self.binary else "linear"
        return resample(self.volume.astype(np.float32), self.affine, run.affine, run.shape, how)

    def concerns(self, task: str, trial_type: str) -> bool:
        """Say whether events of a trial type evoke this effect."""
        return self.trial_type == trial_type and self.task in (None, task)

    def concerns_any(self, task: str, trial_types: Iterable[str]) -> bool:
        """Say whether events of any of some trial types evoke this effect."""
        return any(self.concerns(task, name) for name in trial_types)


@dataclass(frozen=True, eq=False)
class Implants:
    """All effects of a file.

    Attributes
    ----------
    effects : tuple of Implant
        In the order of the file.
    digest : str
        Hash of the file and of the images that it names.
    """

    effects: tuple[Implant, ...]
    digest: str

    def concern(self, task: str, trial_type: str) -> bool:
        """Say whether events of a trial type evoke any effect."""
        return any(effect.concerns(task, trial_type) for effect in self.effects)

    def add(
        self, data: np.ndarray, mask: np.ndarray, run: Run, events: pd.DataFrame, seed: int
    ) -> dict[str, np.ndarray]:
        """Add the effects to a run in place.

        Parameters
        ----------
        data : ndarray of shape (X, Y, Z, T)
            Synthetic volumes.
        mask : ndarray of shape (X, Y, Z), bool
            Brain voxels; nothing is added elsewhere.
        run : Run
            Grid, timing, task and participant.
        events : DataFrame
            Events of the run; effects of trial types without any are left out.
        seed : int
            The user's seed; all runs of a participant have the same draws.

        Returns
        -------
        dict of str to ndarray of shape (X, Y, Z)
            The truth: trial type → percent signal change, zero outside the mask.
        """
        frame_times = run.start_time + np.arange(data.shape[3]) * run.t_r
        mean = data.mean(axis=3)
        truth: dict[str, np.ndarray] = {}
        for number, effect in enumerate(self.effects):
            if not effect.concerns_any(run.task, events["trial_type"].astype(str)):
                continue
            z = keyed_generator(seed, "implant", number, run.participant).standard_normal()
            values = np.where(mask, (effect.size + effect.spread * z) * effect.shape_on(run), 0)
            regressor = _regressor(effect, events, frame_times)
            where = values != 0
            data[where] += (mean[where] * values[where] / 100)[:, None] * regressor
            truth[effect.trial_type] = truth.get(effect.trial_type, 0) + values.astype(np.float32)
        return truth


def _regressor(effect: Implant, events: pd.DataFrame, frame_times: np.ndarray) -> np.ndarray:
    """Convolve the events of an effect with the canonical response, (T,) float32."""
    own = events[events["trial_type"].astype(str) == effect.trial_type]
    onset = own["onset"].to_numpy(float) + effect.delay
    duration = own["duration"].to_numpy(float)
    condition = np.stack([onset, duration, np.ones_like(onset)])
    return np.asarray(compute_regressor(condition, HRF_MODEL, frame_times)[0][:, 0], np.float32)


def read_implants(path: Path) -> Implants:
    """Read effects from a JSON or TOML file.

    The file holds a list ``effects``, each with ``trial_type`` (and ``task``, where it is of one
    alone), a place, a size and, if wanted, ``spread`` and ``delay``:

    - place: ``map`` (an image), ``sphere`` (``center`` in mm and ``radius``) or ``region``
      (``atlas``, an image, and ``label``, a number in it);
    - size: ``size`` in percent signal change, or ``d``, Cohen's d over participants, which is
      the mean over the ``spread``.

    Paths are relative to the file.

    Raises
    ------
    NoInputError
        The file, or an image that it names, does not exist.
    DataError
        The file is no JSON or TOML, or an image cannot be used.
    UsageError
        An effect lacks something, or has something that does not exist.
    """
    if not path.is_file():
        raise NoInputError(f"--implant {path}: there is no such file.")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is no {path.suffix[1:].upper() or 'JSON'}: {error}") from error
    listed = content.get("effects") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise UsageError(f'{path} has no list "effects"; expected one with at least one effect.')
    digest = hashlib.sha256(raw)
    effects = []
    for number, entry in enumerate(listed, start=1):
        where = f"{path}, effect {number}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where} is {entry!r}; an object is expected")
        effects.append(_read_effect(entry, path.parent, where, digest))
    return Implants(tuple(effects), digest.hexdigest()[:16])


def _read_effect(entry: Mapping[str, Any], folder: Path, where: str, digest: Any) -> Implant:
    if unknown := sorted(set(entry) - _KEYS):
        raise UsageError(f"{where}: unknown {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    trial_type = entry.get("trial_type")
    if not isinstance(trial_type, str) or not trial_type:
        raise UsageError(f"{where} has no trial_type")
    task = entry.get("task")
    if task is not None and not isinstance(task, str):
        raise UsageError(f"{where}: task is {task!r}; a label is expected")
    places = [key for key in ("map", "sphere", "region") if key in entry]
    sizes = [key for key in ("size", "d") if key in entry]
    if len(places) != 1 or len(sizes) != 1:
        raise UsageError(
            f"{where} has {' and '.join(places) or 'no place'} and "
            f"{' and '.join(sizes) or 'no size'}; "
            "expected one of map, sphere and region, and one of size and d"
        )
    spread = _number(entry.get("spread", 0.0), "spread", where)
    if spread < 0 or ("d" in entry and spread == 0):
        raise UsageError(
            f"{where}: the spread between participants is {spread:g}; expected at least 0, and "
            "more than 0 where d is given, since d is the mean over the spread"
        )
    size = _number(entry[sizes[0]], sizes[0], where) * (spread if sizes[0] == "d" else 1)
    delay = _number(entry.get("delay", 0.0), "delay", where)
    place = _read_place(places[0], entry[places[0]], folder, where, digest)
    task = task.removeprefix("task-") if task else None
    return Implant(trial_type, task, size, spread, delay, **place)


def _read_place(kind: str, value: Any, folder: Path, where: str, digest: Any) -> dict[str, Any]:
    """Read where an effect is: fields of `Implant`."""
    if kind == "map":
        if not isinstance(value, str):
            raise UsageError(f"{where}: map is {value!r}; the path of an image is expected")
        volume, affine = _image(folder / value, where, digest)
        return {"volume": volume, "affine": affine}
    expected = {"sphere": {"center", "radius"}, "region": {"atlas", "label"}}[kind]
    if not isinstance(value, dict) or set(value) != expected:
        raise UsageError(f"{where}: {kind} is {value!r}; expected {' and '.join(sorted(expected))}")
    if kind == "sphere":
        centre = value["center"]
        if not isinstance(centre, list) or len(centre) != 3:
            raise UsageError(f"{where}: center is {centre!r}; three numbers (mm) are expected")
        radius = _number(value["radius"], "radius", where)
        if radius <= 0:
            raise UsageError(f"{where}: the radius is {radius:g}; more than 0 mm is expected")
        x, y, z = (_number(number, "center", where) for number in centre)
        return {"centre": (x, y, z), "radius": radius}
    labels, affine = _image(folder / str(value["atlas"]), where, digest)
    region = labels == _number(value["label"], "label", where)
    if not region.any():
        raise UsageError(f"{where}: the atlas has no voxel of the label {value['label']!r}")
    return {"volume": region, "affine": affine, "binary": True}


def _image(path: Path, where: str, digest: Any) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise NoInputError(f"{where}: there is no image {path}")
    digest.update(path.read_bytes())
    return load_volume(path)


def _number(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise UsageError(f"{where}: {name} is {value!r}; a number is expected")
    return float(value)


def unused_effects(implants: Implants, events: Sequence[tuple[str, set[str]]]) -> list[str]:
    """Name the trial types of effects that no run has.

    Parameters
    ----------
    implants : Implants
        The effects.
    events : sequence of (str, set of str)
        Task and trial types of each run.
    """
    return sorted(
        {
            effect.trial_type
            for effect in implants.effects
            if not any(effect.concerns_any(task, names) for task, names in events)
        }
    )
