"""Draw the head motion that the confounds of a synthetic run tell of."""

from __future__ import annotations

import numpy as np

from fmrisynth.runtime.randomness import keyed_generator

__all__ = ["HEAD_RADIUS", "draw_motion"]

BLOCK = 20.0  # s; steps that follow each other within it stay together
# Of a quiet participant: SD of a step (translations in mm, rotations in rad on a head of 50 mm),
# its memory from volume to volume, the head's return to its place, and how participants differ.
STEP, STEP_MEMORY, RETURN, SPREAD = 0.015, 0.4, 0.02, 0.4
HEAD_RADIUS = 50.0  # mm


def draw_motion(source: np.ndarray | None, n_volumes: int, t_r: float, seed: int) -> np.ndarray:
    """Draw six motion parameters like those of the source, else small and smooth ones.

    Of a source the steps from volume to volume are put in another order, in blocks of
    20 s and with random signs: framewise displacements are those of the source, at other
    times.

    Parameters
    ----------
    source : ndarray of shape (T', 6) or None
        Translations (mm) and rotations (rad) of the run that is imitated.
    n_volumes : int
        Volumes T of the synthetic run.
    t_r : float
        Repetition time (s).
    seed : int
        Seed of the run.

    Returns
    -------
    ndarray of shape (T, 6)
        None of the parameters is constant.
    """
    rng = keyed_generator(seed, "motion")
    if source is not None and len(source) > 2 and (np.ptp(source, axis=0) > 0).all():
        steps = _permuted_steps(np.diff(source, axis=0), n_volumes, max(1, round(BLOCK / t_r)), rng)
        return np.concatenate([source[:1], source[:1] + np.cumsum(steps, axis=0)])
    return _smooth(n_volumes, rng)


def _permuted_steps(
    steps: np.ndarray, n_volumes: int, block: int, rng: np.random.Generator
) -> np.ndarray:
    """Put blocks of steps in a random order with random signs, as often as the run needs."""
    starts = np.arange(0, len(steps), block)
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < n_volumes - 1:
        for start in rng.permutation(starts):
            pieces.append(rng.choice([-1, 1]) * steps[start : start + block])
    return np.concatenate(pieces)[: n_volumes - 1]


def _smooth(n_volumes: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a head that wanders slightly about its place, (T, 6)."""
    size = STEP * np.exp(SPREAD * rng.standard_normal())
    step, place = np.zeros(6), np.zeros(6)
    course = np.empty((n_volumes, 6))
    for t in range(n_volumes):
        course[t] = place
        innovation = (1 - STEP_MEMORY**2) ** 0.5 * rng.standard_normal(6)
        step = STEP_MEMORY * step + size * innovation
        place = (1 - RETURN) * place + step
    course[:, 3:] /= HEAD_RADIUS
    return course
