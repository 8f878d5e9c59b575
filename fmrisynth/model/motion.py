"""Draw the head motion that the confounds of a synthetic run tell of.

A head takes a small step from volume to volume, remembers part of the step before, and is drawn
back to its place. Some steps are far larger than others, and some participants move more.

Legend: T volumes; six parameters, translations (mm) and rotations (rad).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fmrisynth.runtime.randomness import keyed_generator

__all__ = ["HEAD_RADIUS", "MotionPrior"]

HEAD_RADIUS = 50.0  # mm
# Of a quiet participant, for models that have seen no motion: SD of a step (mm), its memory from
# volume to volume, the head's return to its place, and how participants differ.
STEP, MEMORY, RETURN, SPREAD = 0.015, 0.4, 0.02, 0.4


class MotionPrior(nn.Module):
    """Hold the distribution of head motion; no participant's own is in it.

    Attributes
    ----------
    log_step : Tensor of shape (6,)
        Mean over participants of the logarithm of the size of a step (mm, rad).
    spread : Tensor of shape ()
        Standard deviation over participants of that logarithm.
    memory : Tensor of shape ()
        Correlation of a step with the one before.
    pull : Tensor of shape ()
        Share of the distance from its place by which the head returns with each volume.
    burst : Tensor of shape ()
        Standard deviation over volumes of the logarithm of the size of a step.
    """

    log_step: Tensor
    spread: Tensor
    memory: Tensor
    pull: Tensor
    burst: Tensor

    def __init__(self) -> None:
        super().__init__()
        steps = [math.log(STEP)] * 3 + [math.log(STEP / HEAD_RADIUS)] * 3
        self.register_buffer("log_step", torch.tensor(steps))
        self.register_buffer("spread", torch.tensor(SPREAD))
        self.register_buffer("memory", torch.tensor(MEMORY))
        self.register_buffer("pull", torch.tensor(RETURN))
        self.register_buffer("burst", torch.tensor(0.0))

    def draw(self, n_volumes: int, participant: int, run: int) -> np.ndarray:
        """Draw the motion of a run.

        Parameters
        ----------
        n_volumes : int
            T.
        participant, run : int
            Seeds of how much the participant moves, and of the steps.

        Returns
        -------
        ndarray of shape (T, 6)
            None of the parameters is constant.
        """
        level = keyed_generator(participant, "motion").standard_normal()
        size = np.exp(self.log_step.cpu().double().numpy() + float(self.spread) * level)
        rng = keyed_generator(run, "motion")
        bursts = np.exp(float(self.burst) * rng.standard_normal(n_volumes))
        memory, pull = float(self.memory), float(self.pull)
        innovation = (1 - memory**2) ** 0.5 * rng.standard_normal((n_volumes, 6)) * size
        step, place = np.zeros(6), np.zeros(6)
        course = np.empty((n_volumes, 6))
        for t in range(n_volumes):
            course[t] = place
            step = memory * step + bursts[t] * innovation[t]
            place = (1 - pull) * place + step
        return course
