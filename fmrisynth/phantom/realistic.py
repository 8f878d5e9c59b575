r"""Simulate runs that are neither stationary nor Gaussian: ``--realism full``.

What it has beyond the model of :mod:`fmrisynth.phantom`, whose notation is used here:

- **Traits** drive anatomy, connectivity and responses together
  (:mod:`~fmrisynth.phantom.traits`).
- **Places and haemodynamics**: sites lie several mm from where the anatomy would have them, and
  each has a delay, a dispersion and an undershoot of its own
  (:mod:`~fmrisynth.phantom.regional`).
- **Levels**: participants differ in the level and the composition of their noise, runs of a
  participant by less (:mod:`~fmrisynth.phantom.physiology`).
- **Arousal**: the amplitude :math:`e(t)` of the fluctuations wanders and changes with the task.
- **Coupling that depends on the task**: the mixing of the networks goes from :math:`M` to
  :math:`M_{task}` with the course :math:`s(t)` of the task's blocks.
- **A widespread signal** of breathing and arousal, the rhythms of breath and heart as the
  volumes sample them (aliased), and **motion** (:mod:`~fmrisynth.phantom.motion`).
- **Heavy tails** in time, by jerks and arousal, and in space, since the noise of voxels varies
  log-normally, and more towards the rim and the fluid.
- **Thermal noise** loses its share as voxels become larger.

The signal is

.. math::

    y(x, t) = S(x) \Big[ 1 + \tfrac{1}{100} \Big( \sum_k P_k(x)\, b_k(t)
        + e(t) \big[ L(x) \cdot ((1 - s) M + s M_{task})\, n(t) + m(x)\, s(x, t)
        + w(x)\, g(t) \big] + \rho(x) \cdot r(t) + b(x, t) \Big) \Big]
        + \sigma(x)\, \eta(x, t) + \text{motion}

Legend: T volumes, V voxels, K sites, N networks.

with the course :math:`b_k` of a site, networks :math:`n`, smooth noise :math:`s(x, t)`, the
widespread signal :math:`w\,g` and the rhythms :math:`\rho \cdot r`.

Tails, bursts, levels and memory are set by what was measured in real runs with
``benchmarks/realism.py`` (which defines the statistics): 20 participants at rest, 148 volumes of
10 mm at an assumed TR of 2 s (COINSTAC group-ICA test data), beside 40 runs each of both kinds
of phantom with the same volumes and tSNR 208. Median (range) over runs:

================================  =====================  =====================  ===================
statistic                         real                   full                   gaussian
================================  =====================  =====================  ===================
volume energy, largest / median   6.2 (2.8 to 29)        5.4 (2.7 to 25)        1.9 (1.4 to 8.8)
voxel variance, mean / median     1.51 (1.26 to 1.74)    1.59 (1.31 to 2.30)    1.26 (1.15 to 1.55)
SD between runs of log SD         .28                    .30                    .07
lag-1 autocorrelation             .47 (.25 to .66)       .50 (.29 to .70)       .35 (.29 to .41)
smoothness (FWHM, mm)             21.6 (18.1 to 24.8)    21.5 (18.7 to 32.0)    12.3 (11.2 to 13.4)
excess kurtosis                   .14 (-.14 to 4.95)     .22 (-.17 to 1.52)     -.09 (-.13 to .06)
SD of log SD between windows      .18 (.08 to .48)       .17 (.10 to .33)       .04 (.02 to .08)
variance common to all voxels     .33 (.16 to .49)       .28 (.12 to .56)       .07 (.04 to .13)
================================  =====================  =====================  ===================

One real run of 4 mm without smoothing (studyforrest, 156 volumes) has 3.2, 2.36, -, .05, 4.3,
-.03, .04 and .02; the phantom ``full`` at 4 mm comes to 5.1, 1.66, .17, .28, 6.1, .02, .11
and .16: at that resolution it has more memory and more in common than that one run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fmrisynth.phantom.anatomy import draw_anatomy, image_head
from fmrisynth.phantom.fields import weighted_sum
from fmrisynth.phantom.fluctuations import (
    Fluctuations,
    draw_network_courses,
    draw_pattern,
    draw_rhythms,
    draw_smooth,
    draw_widespread_course,
    scale_fluctuations,
)
from fmrisynth.phantom.motion import MOTION_COLUMNS, draw_motion, motion_signal
from fmrisynth.phantom.noise import draw_connectivity, draw_drift
from fmrisynth.phantom.physiology import (
    Physiology,
    arousal_course,
    draw_physiology,
    respiratory_volume,
)
from fmrisynth.phantom.regional import (
    RegionalResponse,
    bounded_profiles,
    draw_regional_response,
    regional_courses,
)
from fmrisynth.phantom.responses import (
    STEP,
    activation_maps,
    event_amplitudes,
    event_courses,
    haemodynamic_response,
)
from fmrisynth.phantom.schedules import draw_events
from fmrisynth.phantom.simulation import Participant, Population, Session, SimulatedRun
from fmrisynth.phantom.traits import draw_traits

__all__ = [
    "RealisticParticipant",
    "RealisticSession",
    "build_realistic_session",
    "draw_realistic_participant",
    "simulate_realistic_run",
]

_RUN_SD = 0.10  # of log level: run
_QUENCHING = 0.15  # share of the fluctuations' amplitude that a task takes away


@dataclass(frozen=True)
class RealisticParticipant(Participant):
    """All that is drawn once per participant.

    Attributes
    ----------
    traits : ndarray of shape (N_TRAITS,)
        τ.
    regional : RegionalResponse
        The same as `response`, with the haemodynamics of the sites.
    physiology : Physiology
        Levels, rhythms and restlessness.
    pattern : ndarray of shape (Z, Y, X)
        Factor on the noise of each voxel.
    """

    traits: np.ndarray
    regional: RegionalResponse
    physiology: Physiology
    pattern: np.ndarray


@dataclass(frozen=True)
class RealisticSession(Session):
    """A participant in one phase-encoding direction: what its runs share.

    Attributes
    ----------
    profiles : ndarray of shape (K, V)
        Form of each site.
    fluctuations : Fluctuations
        Noise.
    """

    profiles: np.ndarray
    fluctuations: Fluctuations


def draw_realistic_participant(population: Population, index: int) -> RealisticParticipant:
    """Draw participant number `index` (from 0) of the cohort."""
    rng = np.random.default_rng([population.config.seed, index])
    traits = draw_traits(rng)
    anatomy = draw_anatomy(population.grid, rng, traits)
    response = draw_regional_response(population.conditions, traits, rng)
    return RealisticParticipant(
        anatomy=anatomy,
        response=response,
        connectivity=draw_connectivity(rng, traits),
        age=int(rng.integers(22, 36)),
        sex=str(rng.choice(["F", "M"])),
        traits=traits,
        regional=response,
        physiology=draw_physiology(rng),
        pattern=draw_pattern(population.grid, rng),
    )


def build_realistic_session(
    population: Population, participant: RealisticParticipant, direction: str
) -> RealisticSession:
    """Image a participant in one phase-encoding direction."""
    head = image_head(population.template, population.grid, participant.anatomy, direction)
    response = participant.regional
    profiles = bounded_profiles(head.position, head.grey, response.displacement)
    return RealisticSession(
        direction=direction,
        head=head,
        maps=activation_maps(population.weights * response.gain, profiles),
        profiles=profiles,
        fluctuations=scale_fluctuations(
            population.config,
            head,
            participant.connectivity,
            participant.physiology,
            participant.pattern.ravel()[head.index],
        ),
    )


def simulate_realistic_run(
    population: Population,
    participant: RealisticParticipant,
    session: RealisticSession,
    task: str,
    rng: np.random.Generator,
) -> SimulatedRun:
    """Simulate one run."""
    config, head = population.config, session.head
    frame_times = config.t_r * np.arange(config.n_volumes)
    events = draw_events(task, config.n_volumes * config.t_r, rng)
    rows = [i for i, (name, _) in enumerate(population.conditions) if name == task]
    sites = regional_courses(
        events,
        event_amplitudes(events, rng),
        [population.conditions[i][1] for i in rows],
        population.weights[rows] * participant.regional.gain[rows],
        participant.regional,
        frame_times,
    )
    state = _task_state(events, frame_times)
    arousal = arousal_course(participant.physiology, config.n_volumes, config.t_r, rng)
    rhythms = draw_rhythms(participant.physiology, frame_times, rng)
    depth = respiratory_volume(config.n_volumes, config.t_r, rng)
    envelope = arousal * (1.0 - _QUENCHING * state) * np.exp(_RUN_SD * rng.standard_normal())
    courses = draw_network_courses(
        participant.connectivity, task, state, participant.physiology, config.t_r, rng
    )
    percent = weighted_sum(courses, session.fluctuations.networks)
    breathing = draw_widespread_course(participant.physiology, depth, config.t_r, rng)
    percent += weighted_sum(breathing[:, None], session.fluctuations.widespread[None])
    percent += draw_smooth(
        session.fluctuations, head, population.grid, participant.physiology,
        n_volumes=config.n_volumes, t_r=config.t_r, rng=rng,
    )  # fmt: skip
    percent *= envelope[:, None].astype(np.float32)
    percent += weighted_sum(sites, session.profiles)
    percent += weighted_sum(rhythms, session.fluctuations.rhythms)
    percent += draw_drift(head, population.grid, config.n_volumes, rng)
    signal = (1.0 + 0.01 * percent) * head.mean
    thermal = rng.standard_normal(signal.shape, dtype=np.float32)
    signal += thermal * session.fluctuations.thermal_sd
    motion = draw_motion(participant.physiology, config.n_volumes, config.t_r, rhythms[:, 0], rng)
    signal += motion_signal(motion, head)
    table = pd.DataFrame(motion.parameters, columns=list(MOTION_COLUMNS))
    table["lost"] = motion.lost
    table["envelope"], table["task_state"], table["widespread"] = envelope, state, breathing
    table["respiration"], table["heart"] = rhythms[:, 0], rhythms[:, 2]
    return SimulatedRun(signal, events, table.round(5))


def _task_state(events: pd.DataFrame, frame_times: np.ndarray) -> np.ndarray:
    """Return how far the brain is in a task at each volume, (T,), from 0 to 1."""
    anything = events.assign(trial_type="any")
    fine = event_courses(anything, np.ones(len(events)), ["any"], frame_times[-1])[:, 0]
    state = np.convolve(np.minimum(fine, 1.0), haemodynamic_response())[: len(fine)]
    return np.clip(state[np.round(frame_times / STEP).astype(int)], 0.0, 1.0)
