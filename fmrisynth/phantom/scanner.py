"""Scan a participant at a site: what scanner and sequence change about somebody's images.

Repetition time, voxels and noise are the cohort's own options. A site has beside them a delay of
the haemodynamic response (vessels do not differ between sites, but slice timing and stimulus
delivery do), a strength of the distortions and units of its own. The population is that of every
cohort, and so are, for one seed, the participants, as long as the voxels have 3 to 5 mm: they
travel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.realistic import RealisticParticipant
from fmrisynth.phantom.simulation import Participant

__all__ = ["scan_at_site"]

Scanned = TypeVar("Scanned", bound=Participant)


def scan_at_site(participant: Scanned, config: PhantomConfig) -> Scanned:
    """Return a participant with the response's delay and the distortions of the cohort's site."""
    anatomy = replace(participant.anatomy, shift=config.distortion * participant.anatomy.shift)
    if isinstance(participant, RealisticParticipant):
        regional = replace(
            participant.regional, latency=participant.regional.latency + config.hrf_delay
        )
        return replace(participant, anatomy=anatomy, response=regional, regional=regional)
    response = participant.response
    response = replace(response, latency=response.latency + config.hrf_delay)
    return replace(participant, anatomy=anatomy, response=response)
