"""Define the options of a phantom cohort, checked at construction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from fmrisynth.errors import UsageError
from fmrisynth.phantom.schedules import PROTOCOLS

__all__ = ["REALISM", "PhantomConfig", "check_effect_size", "check_tasks"]

REALISM = ("gaussian", "full")


@dataclass(frozen=True)
class PhantomConfig:
    """Size, sampling and strength of a simulated cohort.

    Attributes
    ----------
    n_participants : int
        Number of participants.
    n_volumes : int
        Volumes per run.
    t_r : float
        Repetition time in s.
    voxel_size : float
        Edge of the isotropic voxels in mm.
    tsnr : float
        Temporal signal-to-noise ratio of a typical participant, median over the brain.
    effect_size : tuple of float
        Peak percent signal change of the weakest and of the strongest condition in the
        population map; the other conditions lie between them.
    tasks : tuple of str
        Tasks to simulate, among those of :data:`~fmrisynth.phantom.schedules.PROTOCOLS`.
    seed : int
        Seed of the participants and their runs.
    realism : str
        "gaussian": stationary Gaussian noise (:mod:`fmrisynth.phantom`); "full": what real runs
        have beyond that (:mod:`fmrisynth.phantom.realistic`).
    n_runs : int
        Runs per task and phase-encoding direction.
    site : str
        Name of the site, which becomes each run's InstitutionName; empty for none.
    hrf_delay : float
        Seconds by which everybody's haemodynamic response is later at this site.
    distortion : float
        Factor on the susceptibility shift along the phase-encoding axis.
    intensity : float
        Factor on the images' units.
    spikes : float
        Mean number of volumes of a run in which the head jerks, of Gaussian realism; the noise is
        Gaussian without exception where there are none. Of full realism, motion is another.

    Raises
    ------
    UsageError
        A value is impossible or a task is unknown.
    """

    n_participants: int = 16
    n_volumes: int = 48
    t_r: float = 2.0
    voxel_size: float = 4.0
    tsnr: float = 78.0
    effect_size: tuple[float, float] = (1.2, 2.1)
    tasks: tuple[str, ...] = tuple(PROTOCOLS)
    seed: int = 0
    realism: str = "gaussian"
    n_runs: int = 1
    site: str = ""
    hrf_delay: float = 0.0
    distortion: float = 1.0
    intensity: float = 1.0
    spikes: float = 0.4

    def __post_init__(self) -> None:
        _check("n_participants", self.n_participants, 1, 10_000)
        _check("n_volumes", self.n_volumes, 8, 100_000)
        _check("t_r", self.t_r, 0.1, 20.0)
        _check("voxel_size", self.voxel_size, 1.0, 16.0)
        _check("tsnr", self.tsnr, 1.0, 10_000.0)
        _check("seed", self.seed, 0, 2**63 - 1)
        _check("n_runs", self.n_runs, 1, 1000)
        _check("hrf_delay", self.hrf_delay, -4.0, 4.0)
        _check("distortion", self.distortion, 0.0, 3.0)
        _check("intensity", self.intensity, 1e-3, 1e3)
        _check("spikes", self.spikes, 0.0, 100.0)
        check_effect_size(self.effect_size)
        if self.realism not in REALISM:
            raise UsageError(f"realism is {self.realism!r}; expected {' or '.join(REALISM)}.")
        if self.realism == "full" and self.spikes != PhantomConfig.spikes:
            raise UsageError("spikes are those of realism gaussian; full has motion of its own.")
        if self.n_volumes * self.t_r < 30.0:
            raise UsageError(
                f"{self.n_volumes} volumes of {self.t_r:g} s make a run of "
                f"{self.n_volumes * self.t_r:g} s; at least 30 s are needed to hold a block of "
                "each condition. Ask for more volumes or a longer t_r."
            )
        check_tasks(self.tasks)

    def to_json(self) -> dict[str, Any]:
        """Return the options for a file; those that came later only where they are used."""
        later = {"realism", "n_runs", "site", "hrf_delay", "distortion", "intensity", "spikes"}
        unused = {
            field.name
            for field in fields(self)
            if field.name in later and getattr(self, field.name) == field.default
        }
        return {name: value for name, value in asdict(self).items() if name not in unused}


def check_effect_size(effect_size: tuple[float, float]) -> None:
    """Raise UsageError unless the two sizes are possible and in order."""
    low, high = effect_size
    _check("effect_size", low, 0.0, 10.0)
    _check("effect_size", high, low, 10.0)


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise UsageError unless all tasks are known and different, and there is one."""
    unknown = [task for task in tasks if task not in PROTOCOLS]
    if unknown or not tasks or len(set(tasks)) != len(tasks):
        raise UsageError(
            f"tasks is {list(tasks)}; expected one or more different ones of "
            f"{', '.join(PROTOCOLS)}."
        )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} is {value}; expected a value from {low:g} to {high:g}.")
