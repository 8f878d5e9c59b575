"""Scale the parts of the realistic phantom's fluctuations, and draw their courses in a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmrisynth.phantom.anatomy import Head
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.fields import Grid, SplineLattice, random_fields, weighted_sum
from fmrisynth.phantom.noise import (
    N_NETWORKS,
    Connectivity,
    autoregressive,
    network_loadings,
    storage_step,
    task_mixing,
)
from fmrisynth.phantom.physiology import Physiology, periodic_course

__all__ = [
    "Fluctuations",
    "draw_network_courses",
    "draw_pattern",
    "draw_rhythms",
    "draw_smooth",
    "draw_widespread_course",
    "scale_fluctuations",
]

# Shares of the variance in a median voxel of 4 mm.
_THERMAL, _SMOOTH, _NETWORK, _WIDESPREAD, _BREATH, _HEART = 0.42, 0.26, 0.14, 0.13, 0.02, 0.03
_SMOOTH_SIZE = 12.0  # mm: voxels of this size halve the variance of smooth noise
_SMOOTH_TIME, _NETWORK_TIME, _WIDESPREAD_TIME = 3.8, 7.0, 6.0  # s
_SMOOTH_KNOTS = 9.0  # mm
# Log SD of a voxel's noise: its SD over the brain, coarse and fine (vessels), and knots in mm.
_VOXEL_SD, _VOXEL_KNOTS = 0.32, 14.0
_VESSEL_SD, _VESSEL_KNOTS = 0.5, 5.0
_VESSEL_SIZE = 6.0  # mm: voxels of this size halve the variance of the fine part
_THERMAL_PATTERN = 0.6  # exponent of the pattern for thermal noise
_RIM = 1.2  # how much stronger the noise is where the brain ends
_BREATH_SHARE = 0.5  # of the widespread signal's variance from the depth of breathing


@dataclass(frozen=True)
class Fluctuations:
    """Noise of one participant and phase-encoding direction at the voxels of the head, percent.

    Attributes
    ----------
    networks : ndarray of shape (N_NETWORKS, V)
        L(x).
    smooth : ndarray of shape (V,)
        m(x).
    widespread : ndarray of shape (V,)
        w(x).
    rhythms : ndarray of shape (4, V)
        ρ(x): cosine and sine of breath and heart.
    thermal_sd : ndarray of shape (V,)
        σ(x), in the units of the mean image.
    """

    networks: np.ndarray
    smooth: np.ndarray
    widespread: np.ndarray
    rhythms: np.ndarray
    thermal_sd: np.ndarray


def draw_pattern(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Draw a participant's factor on the noise of each voxel, (Z, Y, X), of median 1."""
    coarse = random_fields(SplineLattice(grid, _VOXEL_KNOTS), 1, rng)[0]
    fine = random_fields(SplineLattice(grid, _VESSEL_KNOTS), 1, rng)[0]
    fine_sd = _VESSEL_SD / np.sqrt(1.0 + (grid.voxel_size / _VESSEL_SIZE) ** 2)
    return np.asarray(np.exp(_VOXEL_SD * coarse + fine_sd * fine), np.float32)


def scale_fluctuations(
    config: PhantomConfig,
    head: Head,
    connectivity: Connectivity,
    physiology: Physiology,
    pattern: np.ndarray,
) -> Fluctuations:
    """Scale the parts of the noise to the tSNR asked for in the median voxel of the brain.

    What makes a participant noisier than another is applied after the scaling.

    Parameters
    ----------
    config : PhantomConfig
        tSNR and voxel size.
    head : Head
        Mean image and tissues.
    connectivity : Connectivity
        The participant's networks.
    physiology : Physiology
        The participant's factors on the parts.
    pattern : ndarray of shape (V,)
        The participant's factor on the noise of each voxel.
    """
    mask = head.mask
    rim = np.clip(1.0 - head.brain, 0.0, 1.0)
    pattern = pattern * (1.0 + _RIM * rim)
    networks = network_loadings(head.position, head.grey, connectivity.node_gain) * pattern
    mixed = weighted_sum(connectivity.mixing.T, networks)
    networks /= np.sqrt(np.median(np.square(mixed).sum(axis=0)[mask]))
    shares = {
        "thermal": _THERMAL * (4.0 / config.voxel_size) ** 3,
        "smooth": _SMOOTH
        * (1.0 + (4.0 / _SMOOTH_SIZE) ** 2)
        / (1.0 + (config.voxel_size / _SMOOTH_SIZE) ** 2),
        "networks": _NETWORK,
        "widespread": _WIDESPREAD,
        "breath": _BREATH,
        "heart": _HEART,
    }
    total = sum(shares.values())
    sd = {name: 100.0 / config.tsnr * np.sqrt(share / total) for name, share in shares.items()}

    def part(name: str, form: np.ndarray, factor: float = 1.0) -> np.ndarray:
        form = pattern * form
        return np.asarray(sd[name] * factor * form / np.median(form[mask]), np.float32)

    own = physiology
    breath = part("breath", 0.5 + 1.5 * rim)
    heart = part("heart", 0.3 + 2.0 * head.csf)
    coil = pattern**_THERMAL_PATTERN
    thermal = sd["thermal"] / 100.0 * np.median(head.mean[mask]) * own.thermal
    thermal = thermal * coil / np.median(coil[mask])
    # The images are stored in whole steps; rounding to them is a part of the thermal noise.
    rounding = storage_step(config) / np.sqrt(12.0)
    return Fluctuations(
        networks=np.float32(sd["networks"] * own.level * own.networks) * networks,
        smooth=part("smooth", 0.6 + 0.4 * head.grey + 0.6 * head.csf, own.level * own.smooth),
        widespread=part("widespread", 0.4 + 0.6 * head.grey, own.level * own.widespread),
        rhythms=np.stack([breath, breath, heart, heart]),
        thermal_sd=np.sqrt(np.maximum(thermal**2 - rounding**2, 0.0)).astype(np.float32),
    )


def draw_rhythms(
    physiology: Physiology, frame_times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw cosine and sine of breath and heart at the volumes, (T, 4)."""
    breath = periodic_course(physiology.respiration_rate, frame_times, rng)
    heart = periodic_course(physiology.heart_rate, frame_times, rng)
    return np.hstack([breath, heart])


def draw_network_courses(
    connectivity: Connectivity,
    task: str,
    state: np.ndarray,
    physiology: Physiology,
    t_r: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the courses of the networks, (T, N_NETWORKS), mixed as the task has it.

    Parameters
    ----------
    connectivity : Connectivity
        The participant's networks at rest.
    task : str
        Task of the run.
    state : ndarray of shape (T,)
        How far the brain is in the task, from 0 to 1.
    physiology : Physiology
        Factor on the correlation time.
    t_r : float
        Repetition time in s.
    rng : numpy.random.Generator
        Draws the courses.
    """
    phi = np.exp(-t_r / (_NETWORK_TIME * physiology.time))
    courses = autoregressive(rng.standard_normal((len(state), N_NETWORKS)), phi)
    share = state[:, None]
    at_rest = np.einsum("tn,mn->tm", courses, connectivity.mixing)
    in_task = np.einsum("tn,mn->tm", courses, task_mixing(connectivity, task))
    return np.asarray((1.0 - share) * at_rest + share * in_task)


def draw_widespread_course(
    physiology: Physiology, depth: np.ndarray, t_r: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the course of the widespread signal, (T,), of variance 1.

    Parameters
    ----------
    physiology : Physiology
        Factor on the correlation time.
    depth : ndarray of shape (T,)
        Depth of breathing.
    t_r : float
        Repetition time in s.
    rng : numpy.random.Generator
        Draws the part that is not of breathing.
    """
    phi = np.exp(-t_r / (_WIDESPREAD_TIME * physiology.time))
    other = autoregressive(rng.standard_normal(len(depth)), phi)
    return np.asarray(np.sqrt(_BREATH_SHARE) * depth + np.sqrt(1.0 - _BREATH_SHARE) * other)


def draw_smooth(
    fluctuations: Fluctuations,
    head: Head,
    grid: Grid,
    physiology: Physiology,
    *,
    n_volumes: int,
    t_r: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw smooth noise in percent signal change, (T, V)."""
    lattice = SplineLattice(grid, _SMOOTH_KNOTS)
    knots = rng.standard_normal((n_volumes, *lattice.knots), dtype=np.float32)
    phi = np.exp(-t_r / (_SMOOTH_TIME * physiology.time))
    fields = lattice.evaluate(autoregressive(knots, phi)).reshape(n_volumes, -1)[:, head.index]
    fields *= fluctuations.smooth / lattice.sd.ravel()[head.index]
    return fields
