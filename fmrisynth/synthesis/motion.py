"""Give a synthetic run head motion: that of the run it imitates at other times, or drawn."""

from __future__ import annotations

import numpy as np

from fmrisynth.bids.confounds import read_motion
from fmrisynth.bids.dataset import Run
from fmrisynth.model.motion import MotionPrior
from fmrisynth.runtime.randomness import keyed_generator

__all__ = ["motion_like", "motion_of"]

BLOCK = 20.0  # s; steps that follow each other within it stay together


def motion_of(run: Run, prior: MotionPrior, seeds: tuple[int, int], *, own: bool) -> np.ndarray:
    """Give the six motion parameters of a synthetic run.

    Parameters
    ----------
    run : Run
        The run that is imitated.
    prior : MotionPrior
        Draws the motion of nobody.
    seeds : tuple of int
        Of all that the runs of a participant have in common, and of the run.
    own : bool
        Whether the run moves as the imitated one does, where its motion is known.

    Returns
    -------
    ndarray of shape (T, 6)
        Translations (mm) and rotations (rad); none of them is constant.
    """
    source = read_motion(run.confounds, run.n_volumes) if own else None
    if source is None or len(source) < 3 or not (np.ptp(source, axis=0) > 0).all():
        return prior.draw(run.n_volumes, *seeds)
    return motion_like(source, run.t_r, seeds[1])


def motion_like(source: np.ndarray, t_r: float, seed: int) -> np.ndarray:
    """Draw motion like that of a source.

    Its steps from volume to volume are put in another order, in blocks of 20 s and with
    random signs: framewise displacements are those of the source, at other times.

    Parameters
    ----------
    source : ndarray of shape (T, 6)
        Translations (mm) and rotations (rad).
    t_r : float
        Repetition time (s).
    seed : int
        Seed of the run.

    Returns
    -------
    ndarray of shape (T, 6)
    """
    rng = keyed_generator(seed, "motion")
    steps, block = np.diff(source, axis=0), max(1, round(BLOCK / t_r))
    pieces = [
        rng.choice([-1, 1]) * steps[start : start + block]
        for start in rng.permutation(np.arange(0, len(steps), block))
    ]
    return np.concatenate([source[:1], source[:1] + np.cumsum(np.concatenate(pieces), axis=0)])
