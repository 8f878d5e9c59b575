"""Estimate how the networks of participants differ: how their modes fluctuate together.

Legend: N frames, K modes, Q components.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fmrisynth.model.individual_differences import individual_components, split_halves

__all__ = ["network_differences"]

MODES_PER_GROUP = 8  # neighbours in the order of variance, whose reliability is estimated together


def network_differences(participants: Sequence[Sequence[Tensor]], count: int) -> Tensor:
    """Estimate components of how the modes' covariance differs between participants.

    Parameters
    ----------
    participants : sequence of sequence of Tensor of shape (N, K)
        Courses of each run of each participant, float16 as there are many.
    count : int
        Largest number of components Q.

    Returns
    -------
    Tensor of shape (count, K, K)
        Components of `individual_components`.
    """
    every = torch.cat([course.float() for runs in participants for course in runs])
    scale = every.square().mean(0).sqrt().clamp(min=1e-6)
    halves = []
    for runs in participants:
        parts = [run.float() / scale for run in runs]
        halves.append(split_halves(parts if len(parts) > 1 else parts[0].chunk(2)))
    first, second = (torch.stack([_covariance(half[which]) for half in halves]) for which in (0, 1))
    n_modes = len(scale)
    rank = torch.arange(n_modes) // MODES_PER_GROUP
    return individual_components(first, second, rank[:, None] * n_modes + rank, count)


def _covariance(courses: Sequence[Tensor]) -> Tensor:
    """Compute the covariance of scaled courses (N, K), (K, K) with a trace of K.

    The trace is the overall amplitude, which is no property of the networks.
    """
    total = torch.stack([course.T @ course for course in courses]).sum(0)
    return total * (len(total) / total.trace().clamp(min=1e-12))
