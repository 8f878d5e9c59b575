"""Learn how the heads of the training participants move, from their tables of confounds.

Legend: R runs, T volumes; six parameters, translations (mm) and rotations (rad).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from fmrisynth.bids.confounds import read_motion
from fmrisynth.bids.dataset import Run
from fmrisynth.model.motion import HEAD_RADIUS, MotionPrior

__all__ = ["fit_motion"]

MINIMUM_PARTICIPANTS = 3  # the mean of fewer would be theirs
SHORTEST = 20  # volumes
NORMAL_MEDIAN = 0.6745  # of the size of a standard normal number
SIMULATED = 2000

log = logging.getLogger(__name__)


def fit_motion(runs: Sequence[Run]) -> MotionPrior:
    """Fit size, memory and bursts of the steps from volume to volume, by medians over runs.

    Without the motion of three participants, the prior of a quiet participant stays as it is.
    """
    prior = MotionPrior()
    measured: dict[str, list[np.ndarray]] = {}
    for run in runs:
        motion = read_motion(run.confounds, run.n_volumes)
        if motion is None or len(motion) < SHORTEST:
            continue
        steps = np.diff(motion, axis=0)
        sizes = np.median(np.abs(steps), axis=0) / NORMAL_MEDIAN
        if (sizes > 0).all():
            row = [*np.log(sizes), _memory(steps), _pull(motion, steps), _burst(steps, sizes)]
            measured.setdefault(run.participant, []).append(np.array(row))
    if len(measured) < MINIMUM_PARTICIPANTS:
        log.info("head motion is not learned: %d participants have any", len(measured))
        return prior
    means = np.array([np.mean(rows, axis=0) for rows in measured.values()])
    typical = np.median(means, axis=0)
    levels = means[:, :6].mean(axis=1)
    learned = (typical[:6], levels.std(ddof=1), *typical[6:])
    names = ("log_step", "spread", "memory", "pull", "burst")
    for name, value in zip(names, learned, strict=True):
        getattr(prior, name).copy_(torch.as_tensor(value))
    return prior


def _memory(steps: np.ndarray) -> float:
    """Correlate steps with those before; ranks, since a single jerk would decide it otherwise."""
    ranks = np.argsort(np.argsort(steps, axis=0), axis=0) - (len(steps) - 1) / 2
    products = (ranks[1:] * ranks[:-1]).mean() / np.square(ranks).mean()
    return float(np.clip(products, 0.0, 0.9))


def _pull(motion: np.ndarray, steps: np.ndarray) -> float:
    """Tell how fast the head returns: places vary by step² · (1 + m) / (1 − m) / 2 · pull."""
    memory = _memory(steps)
    walk = steps.var(axis=0) * (1 + memory) / (1 - memory)
    return float(np.clip(np.median(walk / (2 * motion.var(axis=0))), 1e-3, 0.5))


def _burst(steps: np.ndarray, sizes: np.ndarray) -> float:
    """Measure by how much the size of steps varies more than that of Gaussian ones."""
    weights = np.array([1.0] * 3 + [HEAD_RADIUS] * 3)
    gaussian = np.random.default_rng(0).standard_normal((SIMULATED, 6)) * sizes
    variances = []
    for moves in (steps, gaussian):
        length = np.abs(moves) @ weights
        variances.append(np.log(length[length > 0]).var())
    return float(np.clip(variances[0] - variances[1], 0.0, 4.0) ** 0.5)
