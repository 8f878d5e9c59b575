"""Estimate how the networks of participants differ: how their modes fluctuate together.

Legend: N frames, K modes, Q components.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fmrisynth.model.individual_differences import individual_components, split_halves
from fmrisynth.model.noise.participants import MINIMUM_POWER

__all__ = ["network_differences", "network_root"]

MINIMUM_EIGENVALUE = 0.1  # of a participant's W
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


def network_root(difference: Tensor, power: Tensor) -> Tensor:
    """Take the root of one participant's W, as loud as the group's modes.

    Parameters
    ----------
    difference : Tensor of shape (M, M)
        W less the identity.
    power : Tensor of shape (K,)
        Variance of the group's modes, of which the first M are mixed.

    Returns
    -------
    Tensor of shape (M, M)
        Symmetric.
    """
    values, vectors = torch.linalg.eigh(torch.eye(len(difference)).to(difference) + difference)
    root = vectors @ (values.clamp(min=MINIMUM_EIGENVALUE).sqrt()[:, None] * vectors.T)
    power = power[: len(root)]
    return root * (power.sum() / (power @ root.square().sum(1)).clamp(min=MINIMUM_POWER)).sqrt()


def _covariance(courses: Sequence[Tensor]) -> Tensor:
    """Compute the covariance of scaled courses (N, K), (K, K) with a trace of K.

    The trace is the overall amplitude, which is no property of the networks.
    """
    total = torch.stack([course.T @ course for course in courses]).sum(0)
    return total * (len(total) / total.trace().clamp(min=1e-12))
