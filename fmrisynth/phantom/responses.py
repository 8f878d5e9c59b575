"""Define the evoked response: where, how strong and when.

The sites are places that the literature on the HCP battery reports for these tasks, written
down roughly; what matters is that most of them serve several tasks, so that the activation maps
overlap as real ones do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from fmrisynth.phantom.fields import weighted_sum

__all__ = [
    "SITES",
    "STEP",
    "WEIGHTS",
    "Response",
    "activation_maps",
    "condition_weights",
    "draw_response",
    "event_amplitudes",
    "event_courses",
    "haemodynamic_response",
    "site_profiles",
    "time_courses",
]

# Site: centre (mm, MNI) and SD (mm).
SITES: dict[str, tuple[float, float, float, float]] = {
    "V1": (0, -88, 0, 19),
    "V4_L": (-34, -74, -12, 17),
    "V4_R": (34, -74, -12, 17),
    "fusiform_L": (-40, -54, -20, 15),
    "fusiform_R": (41, -52, -20, 15),
    "parahippocampal_L": (-26, -42, -12, 14),
    "parahippocampal_R": (26, -42, -12, 14),
    "MT_L": (-46, -70, 4, 15),
    "MT_R": (48, -66, 4, 15),
    "precuneus": (0, -62, 46, 18),
    "IPS_L": (-30, -58, 48, 18),
    "IPS_R": (32, -58, 48, 18),
    "angular_L": (-48, -64, 32, 17),
    "angular_R": (50, -60, 32, 17),
    "TPJ_L": (-54, -48, 18, 17),
    "TPJ_R": (56, -46, 16, 17),
    "STS_L": (-56, -20, -8, 17),
    "STS_R": (56, -14, -12, 17),
    "auditory_L": (-52, -20, 8, 17),
    "auditory_R": (54, -16, 6, 17),
    "temporal_pole_L": (-50, 8, -22, 15),
    "temporal_pole_R": (50, 10, -24, 15),
    "IFG_L": (-48, 22, 12, 17),
    "IFG_R": (48, 24, 12, 17),
    "DLPFC_L": (-42, 34, 28, 18),
    "DLPFC_R": (42, 36, 28, 18),
    "frontal_pole_L": (-34, 56, 8, 17),
    "frontal_pole_R": (34, 56, 8, 17),
    "premotor_L": (-28, -4, 56, 17),
    "premotor_R": (28, -2, 56, 17),
    "hand_L": (-38, -24, 56, 15),
    "hand_R": (38, -24, 56, 15),
    "foot_L": (-7, -34, 66, 14),
    "foot_R": (7, -34, 66, 14),
    "tongue_L": (-56, -8, 30, 15),
    "tongue_R": (56, -6, 30, 15),
    "SMA": (0, 2, 56, 17),
    "cingulate": (0, 20, 40, 17),
    "insula_L": (-36, 20, 0, 14),
    "insula_R": (36, 20, 0, 14),
    "amygdala_L": (-22, -4, -18, 10),
    "amygdala_R": (22, -4, -18, 10),
    "striatum_L": (-12, 10, -4, 11),
    "striatum_R": (12, 10, -4, 11),
    "thalamus": (0, -16, 8, 17),
    "medial_frontal": (0, 52, 12, 19),
    "posterior_cingulate": (0, -50, 28, 18),
    "cerebellum_L": (-28, -58, -28, 18),
    "cerebellum_R": (28, -58, -28, 18),
}

# Condition: weight per site; a name without side means both sides.
WEIGHTS: dict[tuple[str, str], dict[str, float]] = {
    ("EMOTION", "fear"): {
        "V1": 0.6, "V4": 0.9, "fusiform": 1.0, "amygdala": 1.0, "TPJ_R": 0.7, "IFG": 0.6,
        "hand_L": 0.3, "thalamus": 0.5, "medial_frontal": -0.3, "posterior_cingulate": -0.3,
    },
    ("EMOTION", "neut"): {
        "V1": 0.7, "V4": 1.0, "fusiform": 0.8, "amygdala": 0.5, "MT": 0.3, "IPS": 0.4,
        "IFG": 0.3, "hand_L": 0.3, "medial_frontal": -0.4, "posterior_cingulate": -0.3,
    },
    ("GAMBLING", "win"): {
        "V1": 0.5, "V4": 0.3, "striatum": 1.0, "insula": 0.6, "cingulate": 0.5, "IPS": 0.4,
        "hand_L": 0.4, "thalamus": 0.7, "medial_frontal": 0.4, "cerebellum_R": 0.6,
    },
    ("GAMBLING", "loss"): {
        "V1": 0.5, "V4": 0.3, "striatum": 0.6, "insula": 1.0, "cingulate": 0.8, "IPS": 0.4,
        "hand_L": 0.4, "thalamus": 0.5, "DLPFC_R": 0.5, "cerebellum_R": 0.5,
    },
    ("LANGUAGE", "story"): {
        "auditory": 1.0, "STS": 1.0, "temporal_pole": 0.8, "IFG_L": 0.6, "angular": 0.4,
        "medial_frontal": 0.5, "posterior_cingulate": 0.4, "IPS": -0.4,
    },
    ("LANGUAGE", "math"): {
        "auditory": 1.0, "STS": 0.5, "IPS": 0.6, "DLPFC": 0.5, "insula": 0.4, "cingulate": 0.4,
        "premotor": 0.4, "medial_frontal": -0.5, "posterior_cingulate": -0.5,
    },
    ("MOTOR", "lf"): {
        "foot_R": 1.0, "SMA": 0.8, "cerebellum_L": 0.7, "V1": 0.3, "thalamus": 0.4,
        "premotor": 0.4,
    },
    ("MOTOR", "rf"): {
        "foot_L": 1.0, "SMA": 0.8, "cerebellum_R": 0.7, "V1": 0.3, "thalamus": 0.4,
        "premotor": 0.4,
    },
    ("MOTOR", "lh"): {
        "hand_R": 1.0, "SMA": 0.8, "cerebellum_L": 0.9, "V1": 0.3, "premotor_R": 0.6,
    },
    ("MOTOR", "rh"): {
        "hand_L": 1.0, "SMA": 0.8, "cerebellum_R": 0.9, "V1": 0.3, "premotor_L": 0.6,
    },
    ("MOTOR", "t"): {
        "tongue": 1.0, "SMA": 0.6, "cerebellum": 0.6, "V1": 0.3, "insula": 0.4, "thalamus": 0.5,
    },
    ("RELATIONAL", "relation"): {
        "V1": 0.6, "V4": 0.4, "IPS": 0.6, "frontal_pole": 1.0, "DLPFC": 0.4, "IFG": 0.4,
        "precuneus": 0.8, "hand_L": 0.3, "medial_frontal": -0.5, "cerebellum": 0.6,
    },
    ("RELATIONAL", "match"): {
        "V1": 0.8, "V4": 0.4, "IPS": 0.5, "frontal_pole": 0.8, "DLPFC": 0.3, "precuneus": 0.8,
        "hand_L": 0.3, "cerebellum": 0.6, "medial_frontal": -0.4,
    },
    ("SOCIAL", "mental"): {
        "V1": 0.4, "MT": 1.0, "TPJ": 1.0, "STS": 0.6, "fusiform": 0.3, "temporal_pole": 0.5,
        "IFG": 0.4, "medial_frontal": 0.6, "precuneus": 0.3,
    },
    ("SOCIAL", "rnd"): {
        "V1": 0.5, "MT": 1.0, "V4": 0.3, "IPS": 0.4, "premotor": 0.3, "TPJ": 0.5,
        "medial_frontal": 0.2,
    },
    ("WM", "2bk"): {
        "V1": 0.3, "fusiform": 0.4, "parahippocampal": 0.5, "IPS": 1.0, "DLPFC": 1.0,
        "premotor": 0.8, "cingulate": 0.8, "insula": 0.6, "precuneus": 0.5, "hand_L": 0.3,
        "medial_frontal": -0.7, "posterior_cingulate": -0.7, "angular": -0.4,
    },
    ("WM", "0bk"): {
        "V1": 0.3, "fusiform": 0.6, "parahippocampal": 0.9, "IPS": 0.5, "premotor": 0.6,
        "DLPFC": 0.4, "cingulate": 0.4, "hand_L": 0.4, "medial_frontal": -0.5,
        "posterior_cingulate": -0.5,
    },
}  # fmt: skip

# Peak of each condition between the weakest (0) and the strongest (1) of the effect sizes.
RELATIVE_PEAK: dict[tuple[str, str], float] = {
    ("EMOTION", "fear"): 1.0,
    ("EMOTION", "neut"): 1.0,
    ("GAMBLING", "win"): 0.9,
    ("GAMBLING", "loss"): 0.8,
    ("LANGUAGE", "story"): 0.9,
    ("LANGUAGE", "math"): 0.8,
    ("MOTOR", "lf"): 0.8,
    ("MOTOR", "rf"): 0.8,
    ("MOTOR", "lh"): 1.0,
    ("MOTOR", "rh"): 1.0,
    ("MOTOR", "t"): 1.0,
    ("RELATIONAL", "relation"): 0.4,
    ("RELATIONAL", "match"): 0.0,
    ("SOCIAL", "mental"): 0.6,
    ("SOCIAL", "rnd"): 0.4,
    ("WM", "2bk"): 0.6,
    ("WM", "0bk"): 0.5,
}

_SITE_AMPLITUDE_SD = 0.35  # of log amplitude: participant × condition × site
_AMPLITUDE_SD = 0.2  # of log amplitude: participant
_PLACE_SD = 1.5  # mm per axis: what does not follow the anatomy
_LATENCY_SD = 0.6  # s
_TRIAL_SD = 0.3
_RECOVERY, _RECOVERY_TIME = 0.3, 6.0  # β, and τ in s
STEP = 0.05  # s, of the response before it is sampled at the frames


@dataclass(frozen=True)
class Response:
    """How a participant's responses differ from the population's.

    Attributes
    ----------
    gain : ndarray of shape (C, K)
        Factor on the population's weight, per condition and site.
    displacement : ndarray of shape (3, K)
        Shift of each site in mm, in template coordinates.
    latency : float
        Delay of the haemodynamic response in s.
    """

    gain: np.ndarray
    displacement: np.ndarray
    latency: float


def draw_response(conditions: Sequence[tuple[str, str]], rng: np.random.Generator) -> Response:
    """Draw a participant's amplitudes, places and latency.

    Every known condition is drawn, so that a participant is the same in a cohort with fewer
    tasks.
    """
    noise = _SITE_AMPLITUDE_SD * rng.standard_normal((len(WEIGHTS), len(SITES)))
    gain = np.exp(noise + _AMPLITUDE_SD * rng.standard_normal())
    displacement = _PLACE_SD * rng.standard_normal((3, len(SITES)))
    rows = [list(WEIGHTS).index(condition) for condition in conditions]
    return Response(gain[rows], displacement, _LATENCY_SD * rng.standard_normal())


def condition_weights(conditions: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return W, (C, K): weight of each site in each condition, before scaling."""
    weights = np.zeros((len(conditions), len(SITES)), np.float32)
    for row, condition in zip(weights, conditions, strict=True):
        for name, value in WEIGHTS[condition].items():
            sides = [i for i, site in enumerate(SITES) if site in (name, f"{name}_L", f"{name}_R")]
            row[sides] = value
    return weights


def site_profiles(
    position: np.ndarray, grey: np.ndarray, displacement: np.ndarray | None = None
) -> np.ndarray:
    """Return the form of each site at template positions.

    Parameters
    ----------
    position : ndarray of shape (3, V)
        Template position in mm.
    grey : ndarray of shape (V,)
        Probability of grey matter; white matter responds a third as much.
    displacement : ndarray of shape (3, K), optional
        Shift of each site in mm.

    Returns
    -------
    ndarray of shape (K, V), float32
    """
    sites = np.array(list(SITES.values()), np.float32)
    centres = sites[:, :3].T if displacement is None else sites[:, :3].T + displacement
    profiles = np.empty((len(sites), position.shape[1]), np.float32)
    for profile, centre, sd in zip(
        profiles, centres.T.astype(np.float32), sites[:, 3], strict=True
    ):
        squared = np.square(position - centre[:, None]).sum(axis=0)
        profile[:] = np.exp(-squared / (2.0 * sd**2))
    return profiles * (0.3 + 0.7 * grey)


def activation_maps(weights: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Return A, (C, V), in percent signal change, from (C, K) weights and (K, V) profiles."""
    return weighted_sum(weights, profiles)


def haemodynamic_response(
    latency: float = 0.0, dispersion: float = 1.0, undershoot: float = 1.0
) -> np.ndarray:
    """Return the response to a brief event, sampled every 0.05 s, with sum 1.

    A difference of gamma densities with modes at 5 and 15 s, as in SPM, so that a sustained
    event of amplitude 1 comes to a plateau of 1.

    Parameters
    ----------
    latency : float
        Delay in s.
    dispersion : float
        Factor on the width in time.
    undershoot : float
        Factor on the depth of the undershoot.
    """
    t = (np.arange(0.0, 32.0, STEP) - latency) / dispersion
    response = stats.gamma.pdf(t, 6.0) - undershoot * stats.gamma.pdf(t, 16.0) / 6.0
    return response / response.sum()


def event_amplitudes(events: pd.DataFrame, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return z, the amplitude of each event.

    z = (1 + ε) (1 + β (1/2 − exp(−gap / τ))): events that follow each other closely saturate at
    1 − β/2 on average, events after a pause come to 1 + β/2. Without `rng`, ε = 0.
    """
    onset, duration = events["onset"].to_numpy(), events["duration"].to_numpy()
    gap = np.full(len(onset), np.inf)
    gap[1:] = np.maximum(onset[1:] - np.maximum.accumulate(onset + duration)[:-1], 0.0)
    epsilon = 0.0 if rng is None else _TRIAL_SD * rng.standard_normal(len(onset))
    return (1.0 + epsilon) * (1.0 + _RECOVERY * (0.5 - np.exp(-gap / _RECOVERY_TIME)))


def event_courses(
    events: pd.DataFrame, amplitudes: np.ndarray, trial_types: Sequence[str], last_frame: float
) -> np.ndarray:
    """Return the sum of the events of each trial type every 0.05 s, (…, C), before the response.

    Parameters
    ----------
    events : pandas.DataFrame
        Columns ``onset``, ``duration`` (s) and ``trial_type``.
    amplitudes : ndarray of shape (n_events,)
        z of each event.
    trial_types : sequence of str
        Order of the columns returned.
    last_frame : float
        Acquisition time of the last volume in s.
    """
    fine = np.zeros((round((last_frame + 1.0) / STEP) + 1, len(trial_types)))
    onset, duration = events["onset"].to_numpy(), events["duration"].to_numpy()
    first = np.round(onset / STEP).astype(int)
    last = np.round((onset + duration) / STEP).astype(int)
    for i, trial_type in enumerate(events["trial_type"]):
        fine[first[i] : last[i], trial_types.index(trial_type)] += amplitudes[i]
    return fine


def time_courses(
    events: pd.DataFrame,
    amplitudes: np.ndarray,
    trial_types: Sequence[str],
    latency: float,
    frame_times: np.ndarray,
) -> np.ndarray:
    """Return r, the response in time of each trial type.

    Parameters
    ----------
    events : pandas.DataFrame
        Columns ``onset``, ``duration`` (s) and ``trial_type``.
    amplitudes : ndarray of shape (n_events,)
        z of each event.
    trial_types : sequence of str
        Order of the columns returned.
    latency : float
        The participant's delay in s.
    frame_times : ndarray of shape (T,)
        Acquisition time of each volume in s.

    Returns
    -------
    ndarray of shape (T, C)
    """
    fine = event_courses(events, amplitudes, trial_types, frame_times[-1])
    kernel = haemodynamic_response(latency)
    response = np.stack([np.convolve(column, kernel)[: len(fine)] for column in fine.T], axis=1)
    return response[np.round(frame_times / STEP).astype(int)]
