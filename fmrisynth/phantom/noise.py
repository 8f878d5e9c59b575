"""Draw what fluctuates without a task: networks, smooth noise, drift, thermal noise, motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmrisynth.phantom.anatomy import Head
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.fields import Grid, SplineLattice, random_fields, weighted_sum
from fmrisynth.phantom.schedules import PROTOCOLS
from fmrisynth.phantom.traits import couple, trait_patterns

__all__ = [
    "N_NETWORKS",
    "Connectivity",
    "NoiseModel",
    "autoregressive",
    "build_noise_model",
    "draw_connectivity",
    "draw_drift",
    "draw_noise",
    "draw_spikes",
    "draw_thermal",
    "network_loadings",
    "population_networks",
    "storage_step",
    "task_mixing",
]

N_NETWORKS = 16
_NODES = 6  # per network
_POPULATION_KEY = 20130515  # the networks are the same in every cohort

# Shares of the variance in a median voxel.
_THERMAL, _SMOOTH, _NETWORK = 0.48, 0.39, 0.13
# Correlation times in s of the two autocorrelated parts; φ = exp(−TR / τ).
_SMOOTH_TIME, _NETWORK_TIME = 3.8, 7.0
_SMOOTH_KNOTS = 9.0  # mm
_NODE_GAIN_SD = 0.4  # of log loading: participant × node
_OWN_CONNECTIVITY = 0.6  # share of the participant's own part in the mixing
_TASK_CONNECTIVITY = 0.6  # change of the mixing by a task, in the same unit
_LEVEL_SD = 0.08  # of log noise level: participant
_DRIFT_SD, _DRIFT_KNOTS = 0.4, 50.0  # percent at the end of a run; mm
_SPIKE_SD = 0.35  # mm per axis


@dataclass(frozen=True)
class Connectivity:
    """A participant's networks.

    Attributes
    ----------
    node_gain : ndarray of shape (N_NETWORKS, nodes)
        Factor on the loading of each node.
    mixing : ndarray of shape (N_NETWORKS, N_NETWORKS)
        M: correlated network courses are M times independent ones; rows have norm 1.
    level : float
        Noise level against the average participant.
    """

    node_gain: np.ndarray
    mixing: np.ndarray
    level: float


@dataclass(frozen=True)
class NoiseModel:
    """Noise of one participant and phase-encoding direction at the voxels of the head.

    Attributes
    ----------
    loadings : ndarray of shape (N_NETWORKS, V)
        Percent signal change per unit of a network's course.
    smooth_sd : ndarray of shape (V,)
        m(x), percent.
    thermal_sd : float
        σ, in the units of the mean image.
    """

    loadings: np.ndarray
    smooth_sd: np.ndarray
    thermal_sd: float


def population_networks() -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes' centres (N_NETWORKS, nodes, 3) and SDs (N_NETWORKS, nodes), both in mm.

    Half of the nodes mirror the others, as most resting-state networks are bilateral.
    """
    rng = np.random.default_rng(_POPULATION_KEY)
    # Places spread over the cortical shell and the middle of an ellipsoid of the brain's size.
    direction = rng.standard_normal((N_NETWORKS, _NODES // 2, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    radius = rng.uniform(0.55, 1.0, (N_NETWORKS, _NODES // 2, 1))
    right = direction * radius * (58.0, 78.0, 52.0) + (0.0, -18.0, 18.0)
    centres = np.concatenate([right, right * (-1.0, 1.0, 1.0)], axis=1)
    sds = rng.uniform(9.0, 15.0, (N_NETWORKS, _NODES // 2))
    return centres, np.concatenate([sds, sds], axis=1)


def draw_connectivity(rng: np.random.Generator, traits: np.ndarray | None = None) -> Connectivity:
    """Draw a participant's network strengths, mixing and noise level.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws what is the participant's own.
    traits : ndarray of shape (N_TRAITS,), optional
        Traits that drive a part of strengths and mixing.
    """
    population = np.random.default_rng(_POPULATION_KEY + 1)
    common = np.eye(N_NETWORKS) + 0.25 * population.standard_normal((N_NETWORKS, N_NETWORKS))
    own = rng.standard_normal((N_NETWORKS, N_NETWORKS)) / np.sqrt(N_NETWORKS)
    if traits is not None:
        own = couple(traits, trait_patterns(own.shape, 4) / np.sqrt(N_NETWORKS), own)
    mixing = common + _OWN_CONNECTIVITY * own
    mixing /= np.linalg.norm(mixing, axis=1, keepdims=True)
    strength = rng.standard_normal((N_NETWORKS, _NODES))
    if traits is not None:
        strength = couple(traits, trait_patterns(strength.shape, 5), strength)
    node_gain = np.exp(_NODE_GAIN_SD * strength)
    return Connectivity(node_gain, mixing, float(np.exp(_LEVEL_SD * rng.standard_normal())))


def task_mixing(connectivity: Connectivity, task: str) -> np.ndarray:
    """Return the mixing of a participant's networks while performing a task."""
    place = list(PROTOCOLS).index(task)
    population = np.random.default_rng([_POPULATION_KEY, place])
    change = population.standard_normal((N_NETWORKS, N_NETWORKS)) / np.sqrt(N_NETWORKS)
    mixing = connectivity.mixing + _TASK_CONNECTIVITY * change
    mixing /= np.linalg.norm(mixing, axis=1, keepdims=True)
    return np.asarray(mixing)


def network_loadings(
    position: np.ndarray, grey: np.ndarray, node_gain: np.ndarray | None = None
) -> np.ndarray:
    """Return the form of each network at template positions, (N_NETWORKS, V), unscaled.

    Parameters
    ----------
    position : ndarray of shape (3, V)
        Template position in mm.
    grey : ndarray of shape (V,)
        Probability of grey matter.
    node_gain : ndarray of shape (N_NETWORKS, nodes), optional
        The participant's; 1 without it.
    """
    centres, sds = population_networks()
    gains = np.ones(sds.shape) if node_gain is None else node_gain
    loadings = np.zeros((N_NETWORKS, position.shape[1]), np.float32)
    for network, node in np.ndindex(sds.shape):
        offset = position - centres[network, node][:, None].astype(np.float32)
        bump = np.exp(-np.square(offset).sum(axis=0) / np.float32(2.0 * sds[network, node] ** 2))
        loadings[network] += np.float32(gains[network, node]) * bump
    return loadings * (0.35 + 0.65 * grey)


def build_noise_model(head: Head, connectivity: Connectivity, config: PhantomConfig) -> NoiseModel:
    """Scale the parts of the noise so that the median tSNR of the brain is what was asked for."""
    mask = head.mask
    loadings = network_loadings(head.position, head.grey, connectivity.node_gain)
    mixed = weighted_sum(connectivity.mixing.T, loadings)
    loadings *= np.sqrt(_NETWORK / np.median(np.square(mixed).sum(axis=0)[mask]))
    # Pulsation is strongest in and around the fluid; white matter is quiet.
    smooth = 0.6 + 0.4 * head.grey + 0.6 * head.csf
    smooth *= np.sqrt(_SMOOTH) / np.median(smooth[mask])
    thermal = np.sqrt(_THERMAL) * np.median(head.mean[mask])
    mixed = weighted_sum(connectivity.mixing.T, loadings)
    variance = np.square(mixed).sum(axis=0) + smooth**2 + (thermal / head.mean) ** 2
    scale = 100.0 / config.tsnr * connectivity.level / np.sqrt(np.median(variance[mask]))
    # The images are stored in whole steps; rounding to them is a part of the thermal noise.
    rounding = storage_step(config) / np.sqrt(12.0)
    thermal_sd = np.sqrt(max((thermal * scale / 100.0) ** 2 - rounding**2, 0.0))
    return NoiseModel(
        loadings=loadings * np.float32(scale),
        smooth_sd=(smooth * scale).astype(np.float32),
        thermal_sd=float(thermal_sd),
    )


def storage_step(config: PhantomConfig) -> float:
    """Return the difference of signal that a stored image resolves (grey matter is about 1).

    Two thirds of the noise's SD: finer steps would be kept for noise alone, and compress badly.
    A third where participants can be much quieter than the typical one.
    """
    return (2.0 if config.realism == "gaussian" else 1.0) / (3.0 * config.tsnr)


def draw_noise(
    model: NoiseModel,
    head: Head,
    connectivity: Connectivity,
    grid: Grid,
    *,
    n_volumes: int,
    t_r: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the fluctuations of one run in percent signal change, (T, V), without thermal noise."""
    courses = autoregressive(
        rng.standard_normal((n_volumes, N_NETWORKS)), np.exp(-t_r / _NETWORK_TIME)
    )
    noise = weighted_sum(courses @ connectivity.mixing.T, model.loadings)
    lattice = SplineLattice(grid, _SMOOTH_KNOTS)
    knots = rng.standard_normal((n_volumes, *lattice.knots), dtype=np.float32)
    smooth = lattice.evaluate(autoregressive(knots, np.exp(-t_r / _SMOOTH_TIME)))
    smooth = smooth.reshape(n_volumes, -1)[:, head.index]
    smooth *= model.smooth_sd / lattice.sd.ravel()[head.index]
    noise += smooth
    noise += draw_drift(head, grid, n_volumes, rng)
    return noise


def draw_thermal(model: NoiseModel, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw thermal noise in the units of the mean image, (T, V)."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(model.thermal_sd)


def draw_spikes(n_volumes: int, mean: float, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Draw the volumes in which the head jerks, and the displacement in mm of each."""
    count = min(rng.poisson(mean), n_volumes)
    volumes = rng.choice(n_volumes, count, replace=False)
    return {int(t): _SPIKE_SD * rng.standard_normal(3) for t in np.sort(volumes)}


def autoregressive(white: np.ndarray, phi: float) -> np.ndarray:
    """Filter white noise along the first axis: AR(1) with variance 1 from its first sample."""
    filtered = white * white.dtype.type(np.sqrt(1.0 - phi**2))
    filtered[0] = white[0]
    for t in range(1, len(filtered)):
        filtered[t] += white.dtype.type(phi) * filtered[t - 1]
    return filtered


def draw_drift(head: Head, grid: Grid, n_volumes: int, rng: np.random.Generator) -> np.ndarray:
    """Draw slow drift in percent, (T, V): two smooth maps times a line and half a cosine."""
    maps = random_fields(SplineLattice(grid, _DRIFT_KNOTS), 2, rng).reshape(2, -1)[:, head.index]
    time = np.linspace(-1.0, 1.0, n_volumes)
    courses = np.stack([time, np.cos(np.pi * (time + 1.0)) / 2.0], axis=1)
    return weighted_sum(_DRIFT_SD * courses, maps)
