"""Turn an events table into regressors: shares of each TR and haemodynamic responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from nilearn.glm.first_level import compute_regressor

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.errors import DataError
from fmrisynth.preprocess.carrier import drift_basis, remove_drift

__all__ = ["Design", "design_of", "own_regressors"]

HRF_MODEL = "glover + derivative"


@dataclass(frozen=True)
class Design:
    """The regressors of a run: the course of each trial type over its frames.

    Legend: T frames, V trial types.

    Attributes
    ----------
    share : ndarray of shape (T, V)
        Share of each TR in which the trial type is on, clipped to 1.
    hrf : ndarray of shape (T, V, 2)
        The events convolved with the canonical HRF (Glover) and with its time
        derivative.
    evoked : ndarray of shape (T, V, 2)
        `hrf` without mean and slow drift, as the residuals are.
    t_r : float
        Repetition time (s).
    """

    share: np.ndarray
    hrf: np.ndarray
    evoked: np.ndarray
    t_r: float


def design_of(
    events: pd.DataFrame,
    trial_types: Sequence[str],
    n_volumes: int,
    t_r: float,
    *,
    start_time: float = 0.0,
    high_pass: float,
) -> Design:
    """Compute the regressors of a run's trial types.

    Parameters
    ----------
    events : DataFrame
        Columns onset (s), duration (s) and trial_type, as `read_events` returns.
    trial_types : sequence of str
        The V columns, in order; those without an event are zero.
    n_volumes : int
        Frames of the run.
    t_r : float
        Repetition time (s).
    start_time : float
        Time of the first frame on the clock of the onsets (s).
    high_pass : float
        Highest drift frequency (Hz), as in `split`.

    Returns
    -------
    Design
        Arrays in float32.
    """
    frame_times = start_time + np.arange(n_volumes) * t_r
    share = np.zeros((n_volumes, len(trial_types)), np.float32)
    hrf = np.zeros((n_volumes, len(trial_types), 2), np.float32)
    for column, name in enumerate(trial_types):
        events_of_type = events[events["trial_type"] == name]
        if events_of_type.empty:
            continue
        onset = events_of_type["onset"].to_numpy(float)
        # nilearn turns a duration of 0 into an impulse; give it the area of 1 s, as SPM does
        duration = events_of_type["duration"].to_numpy(float)
        length = np.where(duration > 0, duration, 1.0)
        overlap = np.minimum(frame_times[:, None] + t_r, onset + length) - np.maximum(
            frame_times[:, None], onset
        )
        share[:, column] = np.clip(np.clip(overlap, 0, None).sum(1) / t_r, 0, 1)
        condition = np.stack([onset, length, np.ones_like(onset)])
        hrf[:, column] = compute_regressor(condition, HRF_MODEL, frame_times)[0]
    basis = drift_basis(n_volumes, t_r, high_pass)
    return Design(share, hrf, remove_drift(hrf, basis).astype(np.float32), t_r)


def own_regressors(run: Run, n_volumes: int, high_pass: float) -> np.ndarray | None:
    """Compute the evoked regressors of a run from its own events, whatever trial types they have.

    Parameters
    ----------
    run : Run
        Its events and timing.
    n_volumes : int
        Frames T.
    high_pass : float
        Highest drift frequency (Hz).

    Returns
    -------
    ndarray of shape (T, 2·V) or None
        None where the events cannot be read.
    """
    try:
        events = read_events(run.events, duration=run.duration)
    except DataError:
        return None
    names = sorted(map(str, events["trial_type"].unique()))
    design = design_of(
        events, names, n_volumes, run.t_r, start_time=run.start_time, high_pass=high_pass
    )
    return design.evoked.reshape(n_volumes, -1)
