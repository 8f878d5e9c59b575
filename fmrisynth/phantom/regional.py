"""Draw responses that differ between regions and participants in time, place and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import fft

from fmrisynth.phantom.responses import (
    SITES,
    STEP,
    WEIGHTS,
    Response,
    event_courses,
    haemodynamic_response,
    site_profiles,
)
from fmrisynth.phantom.traits import couple, trait_patterns

__all__ = ["RegionalResponse", "bounded_profiles", "draw_regional_response", "regional_courses"]

_POPULATION_KEY = 20240612  # the regions' own responses are the same in every cohort

# SD between regions of the population, and between a participant's regions around them.
_DELAY_SD, _OWN_DELAY_SD = 0.5, 0.4  # s
_DISPERSION_SD, _OWN_DISPERSION_SD = 0.10, 0.06  # of the logarithm
_UNDERSHOOT_SD, _OWN_UNDERSHOOT_SD = 0.40, 0.20  # of the logarithm

# SD between participants.
_LATENCY_SD = 0.5  # s
_AMPLITUDE_SD = 0.2  # of log amplitude, all conditions and sites together
_SITE_SD, _CONDITION_SD = 0.35, 0.25  # of log amplitude: site; condition × site
_PLACE_SD = 3.5  # mm per axis: what does not follow the anatomy

_LEAST = 0.02  # of the peak of a site; further out it is zero


@dataclass(frozen=True)
class RegionalResponse(Response):
    """A participant's responses, with a haemodynamic response of each site.

    Attributes
    ----------
    delay : ndarray of shape (K,)
        Delay of each site in s, on top of the participant's latency.
    dispersion : ndarray of shape (K,)
        Factor on the width of the response in time.
    undershoot : ndarray of shape (K,)
        Factor on the depth of the undershoot.
    """

    delay: np.ndarray
    dispersion: np.ndarray
    undershoot: np.ndarray

    def kernels(self) -> np.ndarray:
        """Return the response of each site to a brief event every 0.05 s, (K, …), sum 1."""
        sites = zip(self.delay, self.dispersion, self.undershoot, strict=True)
        return np.stack(
            [haemodynamic_response(self.latency + delay, *shape) for delay, *shape in sites]
        )


def draw_regional_response(
    conditions: Sequence[tuple[str, str]], traits: np.ndarray, rng: np.random.Generator
) -> RegionalResponse:
    """Draw amplitudes, places and haemodynamic responses of a participant with given traits.

    Every known condition is drawn, so that a participant is the same in a cohort with fewer
    tasks.
    """
    n_sites = len(SITES)
    by_site = couple(traits, trait_patterns((n_sites,), 1), rng.standard_normal(n_sites))
    by_both = couple(
        traits,
        trait_patterns((len(WEIGHTS), n_sites), 2),
        rng.standard_normal((len(WEIGHTS), n_sites)),
    )
    logarithm = _SITE_SD * by_site + _CONDITION_SD * by_both
    gain = np.exp(logarithm + _AMPLITUDE_SD * rng.standard_normal())
    place = couple(traits, trait_patterns((3, n_sites), 3), rng.standard_normal((3, n_sites)))
    population = np.random.default_rng(_POPULATION_KEY)

    def shape(sd: float, own_sd: float) -> np.ndarray:
        own = own_sd * rng.standard_normal(n_sites)
        return np.asarray(sd * population.standard_normal(n_sites) + own)

    rows = [list(WEIGHTS).index(condition) for condition in conditions]
    return RegionalResponse(
        gain=gain[rows],
        displacement=_PLACE_SD * place,
        latency=_LATENCY_SD * rng.standard_normal(),
        delay=shape(_DELAY_SD, _OWN_DELAY_SD),
        dispersion=np.exp(shape(_DISPERSION_SD, _OWN_DISPERSION_SD)),
        undershoot=np.exp(shape(_UNDERSHOOT_SD, _OWN_UNDERSHOOT_SD)),
    )


def bounded_profiles(
    position: np.ndarray, grey: np.ndarray, displacement: np.ndarray
) -> np.ndarray:
    """Return the sites' profiles, (K, V), with an end: zero where below 2 % of a site's peak."""
    profiles = site_profiles(position, grey, displacement)
    profiles[profiles < _LEAST] = 0.0
    return profiles


def regional_courses(
    events: pd.DataFrame,
    amplitudes: np.ndarray,
    trial_types: Sequence[str],
    weights: np.ndarray,
    response: RegionalResponse,
    frame_times: np.ndarray,
) -> np.ndarray:
    """Return the course of each site in percent signal change.

    Parameters
    ----------
    events : pandas.DataFrame
        Columns ``onset``, ``duration`` (s) and ``trial_type``.
    amplitudes : ndarray of shape (n_events,)
        z of each event.
    trial_types : sequence of str
        Order of the rows of `weights`.
    weights : ndarray of shape (C, K)
        The participant's amplitude of each site in each condition.
    response : RegionalResponse
        The participant's haemodynamic responses.
    frame_times : ndarray of shape (T,)
        Acquisition time of each volume in s.

    Returns
    -------
    ndarray of shape (T, K)
    """
    fine = event_courses(events, amplitudes, trial_types, frame_times[-1])
    drive = np.einsum("ck,tc->kt", weights, fine)  # one thread: the same sum everywhere
    kernels = response.kernels()
    length = fft.next_fast_len(drive.shape[1] + kernels.shape[1], real=True)
    spectrum = fft.rfft(drive, length) * fft.rfft(kernels, length)
    courses = fft.irfft(spectrum, length)[:, np.round(frame_times / STEP).astype(int)]
    courses[np.abs(courses) < 1e-9] = 0.0  # rounding of the transform before the first event
    return courses.T
