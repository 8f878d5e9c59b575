"""Draw participants from a population, and simulate their runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from fmrisynth.phantom.anatomy import DIRECTIONS, Anatomy, Head, Template, draw_anatomy, image_head
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.fields import Grid, weighted_sum
from fmrisynth.phantom.noise import (
    Connectivity,
    NoiseModel,
    build_noise_model,
    draw_connectivity,
    draw_noise,
    draw_spikes,
    draw_thermal,
    network_loadings,
)
from fmrisynth.phantom.responses import (
    RELATIVE_PEAK,
    Response,
    activation_maps,
    condition_weights,
    draw_response,
    event_amplitudes,
    site_profiles,
    time_courses,
)
from fmrisynth.phantom.schedules import PROTOCOLS, conditions_of, draw_events

__all__ = [
    "GaussianSession",
    "Participant",
    "Population",
    "Session",
    "SimulatedRun",
    "build_session",
    "draw_participant",
    "run_generator",
    "scaled_weights",
    "simulate_run",
]


@dataclass(frozen=True)
class Population:
    """What all participants share, and how they are sampled.

    Attributes
    ----------
    config : PhantomConfig
        What was asked for.
    grid : Grid
        Voxels.
    template : Template
        Tissues.
    conditions : tuple of (task, trial type)
        In the order of the maps.
    weights : ndarray of shape (C, K)
        W, scaled so that each condition's map peaks at its percent signal change.
    maps : ndarray of shape (C, Z, Y, X)
        The population's activation maps in percent signal change.
    networks : ndarray of shape (N, Z, Y, X)
        The population's network loadings, peak 1.
    """

    config: PhantomConfig
    grid: Grid
    template: Template
    conditions: tuple[tuple[str, str], ...]
    weights: np.ndarray
    maps: np.ndarray
    networks: np.ndarray

    @classmethod
    def build(cls, config: PhantomConfig) -> Population:
        """Load the template and scale the population's maps."""
        grid = Grid(config.voxel_size)
        template = Template.load(config.voxel_size)
        coordinates = grid.coordinates()
        tissues = template.sample(coordinates)
        position, grey, brain = coordinates.reshape(3, -1), tissues[0].ravel(), tissues[3].ravel()
        profiles = site_profiles(position, grey) * (brain > 0.5)
        conditions = conditions_of(config.tasks)
        weights = _scaled(conditions, config.effect_size, _peaks(profiles))
        networks = network_loadings(position, grey) * (brain > 0.5)
        networks /= networks.max(axis=1, keepdims=True)
        shape = (-1, *grid.shape[::-1])
        maps = activation_maps(weights, profiles).reshape(shape)
        return cls(
            config, grid, template, tuple(conditions), weights, maps, networks.reshape(shape)
        )


def scaled_weights(
    conditions: Sequence[tuple[str, str]], effect_size: tuple[float, float]
) -> np.ndarray:
    """Return W, (C, K), such that each condition's map peaks at its percent signal change.

    Independent of any grid that is simulated: the peaks are those at 4 mm.
    """
    return _scaled(conditions, effect_size, _peaks_at_4_mm())


@lru_cache(maxsize=1)
def _peaks_at_4_mm() -> np.ndarray:
    grid = Grid(4.0)
    tissues = Template.load(grid.voxel_size).sample(grid.coordinates())
    brain = tissues[3].ravel() > 0.5
    position = grid.coordinates().reshape(3, -1)[:, brain]
    return _peaks(site_profiles(position, tissues[0].ravel()[brain]))


def _peaks(profiles: np.ndarray) -> np.ndarray:
    """Return the peak of every known condition's map before scaling."""
    weights = condition_weights(conditions_of(tuple(PROTOCOLS)))
    return np.abs(activation_maps(weights, profiles)).max(axis=1)


def _scaled(
    conditions: Sequence[tuple[str, str]], effect_size: tuple[float, float], peaks: np.ndarray
) -> np.ndarray:
    # All conditions are scaled, so that a subset of the tasks has the same maps.
    everything = conditions_of(tuple(PROTOCOLS))
    low, high = effect_size
    relative = np.array([RELATIVE_PEAK[condition] for condition in everything])
    weights = condition_weights(everything)
    weights *= ((low + (high - low) * relative) / peaks)[:, None]
    return weights[[everything.index(condition) for condition in conditions]]


class SimulatedRun(NamedTuple):
    """One simulated run.

    Attributes
    ----------
    signal : ndarray of shape (T, V), float32
        Signal at the voxels of the head, about 1 in grey matter.
    events : pandas.DataFrame
        Columns ``onset``, ``duration`` (s) and ``trial_type``.
    courses : pandas.DataFrame or None
        What moved, breathed and changed at each volume, where the model has such a thing.
    """

    signal: np.ndarray
    events: pd.DataFrame
    courses: pd.DataFrame | None = None


@dataclass(frozen=True)
class Participant:
    """All that is drawn once per participant."""

    anatomy: Anatomy
    response: Response
    connectivity: Connectivity
    age: int
    sex: str


@dataclass(frozen=True)
class Session:
    """A participant in one phase-encoding direction: what its runs share.

    Attributes
    ----------
    direction : str
        "AP" or "PA".
    head : Head
        Mean image and position of the voxels.
    maps : ndarray of shape (C, V)
        A, the participant's activation maps in percent signal change.
    """

    direction: str
    head: Head
    maps: np.ndarray


@dataclass(frozen=True)
class GaussianSession(Session):
    """A session whose noise is stationary and Gaussian.

    Attributes
    ----------
    noise : NoiseModel
        Strength of the fluctuations.
    """

    noise: NoiseModel


def draw_participant(population: Population, index: int) -> Participant:
    """Draw participant number `index` (from 0) of the cohort."""
    config = population.config
    rng = np.random.default_rng([config.seed, index])
    anatomy = draw_anatomy(population.grid, rng)
    return Participant(
        anatomy=anatomy,
        response=draw_response(population.conditions, rng),
        connectivity=draw_connectivity(rng),
        age=int(rng.integers(22, 36)),
        sex=str(rng.choice(["F", "M"])),
    )


def build_session(
    population: Population, participant: Participant, direction: str
) -> GaussianSession:
    """Image a participant in one phase-encoding direction."""
    head = image_head(population.template, population.grid, participant.anatomy, direction)
    response = participant.response
    profiles = site_profiles(head.position, head.grey, response.displacement)
    maps = activation_maps(population.weights * response.gain, profiles)
    noise = build_noise_model(head, participant.connectivity, population.config)
    return GaussianSession(direction, head, maps, noise)


def simulate_run(
    population: Population,
    participant: Participant,
    session: GaussianSession,
    task: str,
    rng: np.random.Generator,
) -> SimulatedRun:
    """Simulate one run."""
    config, head = population.config, session.head
    events = draw_events(task, config.n_volumes * config.t_r, rng)
    rows = [i for i, (name, _) in enumerate(population.conditions) if name == task]
    trial_types = [population.conditions[i][1] for i in rows]
    courses = time_courses(
        events,
        event_amplitudes(events, rng),
        trial_types,
        participant.response.latency,
        config.t_r * np.arange(config.n_volumes),
    )
    percent = weighted_sum(courses, session.maps[rows])
    percent += draw_noise(
        session.noise,
        head,
        participant.connectivity,
        population.grid,
        n_volumes=config.n_volumes,
        t_r=config.t_r,
        rng=rng,
    )
    percent *= 0.01
    percent += 1.0
    signal = percent * head.mean
    signal += draw_thermal(session.noise, signal.shape, rng)
    for volume, displacement in draw_spikes(config.n_volumes, config.spikes, rng).items():
        signal[volume] += displacement.astype(np.float32) @ head.gradient
    return SimulatedRun(signal, events)


def run_generator(
    config: PhantomConfig, index: int, task: str, direction: str, run: int = 1
) -> np.random.Generator:
    """Return the random generator of one run.

    Its key holds the task's place among all tasks, so that a cohort with fewer tasks or runs, or
    one computed in another order, has the same runs.
    """
    place = list(PROTOCOLS).index(task) + 1, sorted(DIRECTIONS).index(direction) + 1
    repetition = [run] if run > 1 else []
    return np.random.default_rng([config.seed, index, *place, *repetition])
