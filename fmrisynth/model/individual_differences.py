"""Estimate individual differences from split halves, and draw those of synthetic participants.

A quantity estimated in each participant varies between participants by their true
differences and by measurement noise. The covariance of the estimates from two
independent halves of each participant's data gives the true share (the reliability).
A synthetic participant is the mean plus

    Σ_q g_q · D_q,  g_q ~ N(0, 1),

with D_q the principal components of the differences, each element scaled by the root of
its reliability. The components are estimated over all participants, so that they hold
nobody's own values.

Legend: P participants, Q components, … the shape of the quantity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["MINIMUM_PARTICIPANTS", "draw_difference", "individual_components", "split_halves"]

MINIMUM_PARTICIPANTS = 3  # fewer leave no variance between participants to estimate

Part = TypeVar("Part")


def split_halves(parts: Sequence[Part]) -> tuple[Sequence[Part], Sequence[Part]]:
    """Split the parts of a participant's data into two halves, by even and odd position."""
    return parts[0::2], parts[1::2]


def individual_components(first: Tensor, second: Tensor, group: Tensor, count: int) -> Tensor:
    """Estimate the principal components of the reliable between-participant differences.

    Parameters
    ----------
    first, second : Tensor of shape (P, …)
        The quantity, estimated from either half of each participant's data.
    group : Tensor of shape (…), int64
        Elements with the same number have one reliability, estimated together.
    count : int
        Largest number of components Q.

    Returns
    -------
    Tensor of shape (count, …)
        Components in order of variance; those for which there are too few
        participants are zero.
    """
    shape, n_participants = first.shape[1:], len(first)
    components = first.new_zeros(count, group.numel())
    available = min(count, n_participants - 1, group.numel())
    if n_participants < MINIMUM_PARTICIPANTS or available < 1:
        return components.view(count, *shape)
    one, other = ((half - half.mean(0)).flatten(1) for half in (first, second))
    mean = (one + other) / 2
    index = group.flatten().to(first.device)
    totals = one.new_zeros(2, int(index.max()) + 1)
    between, observed = totals.index_add(
        1, index, torch.stack([(one * other).sum(0), mean.square().sum(0)])
    )
    reliability = (between / observed.clamp(min=1e-12)).clamp(0, 1)
    scaled = mean * reliability.sqrt()[index] / (n_participants - 1) ** 0.5
    _, sizes, axes = torch.linalg.svd(scaled, full_matrices=False)
    components[:available] = sizes[:available, None] * axes[:available]
    return components.view(count, *shape)


def draw_difference(components: Tensor, participant_seed: int) -> Tensor:
    """Draw the difference of one synthetic participant from the mean.

    Parameters
    ----------
    components : Tensor of shape (Q, …)
        Components of `individual_components`.
    participant_seed : int
        The same seed gives the same difference.

    Returns
    -------
    Tensor of shape (…)
        Zero on average over seeds.
    """
    generator = torch.Generator().manual_seed(participant_seed)
    weights = torch.randn(len(components), generator=generator).to(components)
    return torch.tensordot(weights, components, dims=1)
