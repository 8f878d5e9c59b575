"""Draw how noisy a participant is: levels, arousal, breathing, heartbeat and motion.

The spreads between participants are such that runs of a simulated cohort lie within the range
that was measured in real runs (:mod:`fmrisynth.phantom.realistic` has the table).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmrisynth.phantom.noise import autoregressive

__all__ = [
    "Physiology",
    "arousal_course",
    "draw_physiology",
    "periodic_course",
    "respiratory_volume",
]

_LEVEL_SD = 0.22  # of the logarithm, as all SDs here unless a unit is given
_THERMAL_SD = 0.15
_PART_SD = 0.25  # smooth noise and networks
_WIDESPREAD_SD = 0.40
_TIME_SD = 0.45
_AROUSAL, _AROUSAL_SD = 0.27, 0.40
_AROUSAL_TIME, _AROUSAL_TIME_SD = 12.0, 0.3  # s
_RESPIRATION_RATE, _RESPIRATION_RATE_SD = 0.27, 0.03  # Hz, Hz
_HEART_RATE, _HEART_RATE_SD = 1.08, 0.12  # Hz, Hz
_MOTION, _MOTION_SD = 0.05, 0.5  # mm
_JERKS, _JERKS_SD = 0.45, 1.0  # per minute
_RATE_WANDER = 0.05  # SD of the rate over time, of its mean
_DEPTH_TIME = 18.0  # s; correlation time of the depth of breathing


@dataclass(frozen=True)
class Physiology:
    """What makes a participant's noise different from another's.

    Attributes
    ----------
    level : float
        Factor on all fluctuations.
    thermal : float
        Factor on thermal noise.
    smooth, networks, widespread : float
        Factors on these parts.
    time : float
        Factor on correlation times.
    arousal : float
        SD over time of the logarithm of the fluctuations' amplitude.
    arousal_time : float
        Its correlation time in s.
    respiration_rate, heart_rate : float
        Hz.
    motion : float
        SD of slow translation in mm; the size of jerks goes with it.
    jerk_rate : float
        Mean number of sudden movements per minute.
    """

    level: float
    thermal: float
    smooth: float
    networks: float
    widespread: float
    time: float
    arousal: float
    arousal_time: float
    respiration_rate: float
    heart_rate: float
    motion: float
    jerk_rate: float


def draw_physiology(rng: np.random.Generator) -> Physiology:
    """Draw a participant's physiology; who moves more is noisier throughout."""
    restless = rng.standard_normal()

    def factor(sd: float, weight: float = 0.0) -> float:
        own = np.sqrt(1.0 - weight**2) * rng.standard_normal()
        return float(np.exp(sd * (weight * restless + own)))

    return Physiology(
        level=factor(_LEVEL_SD, 0.5),
        thermal=factor(_THERMAL_SD),
        smooth=factor(_PART_SD),
        networks=factor(_PART_SD),
        widespread=factor(_WIDESPREAD_SD, 0.3),
        time=factor(_TIME_SD),
        arousal=_AROUSAL * factor(_AROUSAL_SD, 0.4),
        arousal_time=_AROUSAL_TIME * factor(_AROUSAL_TIME_SD),
        respiration_rate=_RESPIRATION_RATE + _RESPIRATION_RATE_SD * rng.standard_normal(),
        heart_rate=_HEART_RATE + _HEART_RATE_SD * rng.standard_normal(),
        motion=_MOTION * factor(_MOTION_SD, 0.7),
        jerk_rate=_JERKS * factor(_JERKS_SD, 0.7),
    )


def arousal_course(
    physiology: Physiology, n_volumes: int, t_r: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the factor on the fluctuations' amplitude at each volume, (T,), of median 1."""
    # An AR(1) process filtered once more: amplitudes change smoothly.
    phi = np.exp(-t_r / physiology.arousal_time)
    n_before = int(4.0 * physiology.arousal_time / t_r) + 1
    course = autoregressive(rng.standard_normal(n_before + n_volumes), phi)
    course = autoregressive(course, phi)[n_before:]
    # Variance of that cascade with both poles at φ.
    course = course / np.sqrt((1.0 + phi**2) / (1.0 - phi**2))
    return np.asarray(np.exp(physiology.arousal * course))


def periodic_course(rate: float, frame_times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a rhythm of wandering rate as the volumes sample it: cosine and sine, (T, 2).

    A rate above half the sampling rate appears at another frequency, as in real runs.

    Parameters
    ----------
    rate : float
        Mean rate in Hz.
    frame_times : ndarray of shape (T,)
        Acquisition time of each volume in s.
    rng : numpy.random.Generator
        Draws the phase and how the rate wanders.
    """
    steps = np.diff(frame_times, prepend=frame_times[0])
    wander = autoregressive(rng.standard_normal(len(frame_times)), 0.8)
    cycles = np.cumsum(steps * rate * (1.0 + _RATE_WANDER * wander)) + rng.uniform()
    return np.stack([np.cos(2.0 * np.pi * cycles), np.sin(2.0 * np.pi * cycles)], axis=1)


def respiratory_volume(n_volumes: int, t_r: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the depth of breathing at each volume, (T,), of mean 0 and variance 1."""
    return autoregressive(rng.standard_normal(n_volumes), np.exp(-t_r / _DEPTH_TIME))
