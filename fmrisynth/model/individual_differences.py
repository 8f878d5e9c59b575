"""How people differ beyond chance, and what a person that does not exist is like.

A quantity measured in each person differs between people, and it differs by
noise. What two independent halves of everybody's data agree in is no noise: it
gives the share of the variance that is kept. A new person is the mean plus

    Σ_q g_q · D_q,  g_q ~ N(0, 1),

with D_q the principal components of the people's differences, each element cut to
its reliable share. Components of all people together hold no one's own values.

Legend: P people, Q components, … the shape of the quantity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["LEAST_PEOPLE", "between_people", "difference", "in_two"]

LEAST_PEOPLE = 3  # of fewer nothing can be said

Part = TypeVar("Part")


def in_two(parts: Sequence[Part]) -> tuple[Sequence[Part], Sequence[Part]]:
    """Split what there is of a person into two halves, every second part to each."""
    return parts[0::2], parts[1::2]


def between_people(first: Tensor, second: Tensor, group: Tensor, count: int) -> Tensor:
    """Principal components of the reliable differences between people.

    Parameters
    ----------
    first, second : torch.Tensor
        (P, …) the quantity from either half of each person's data.
    group : torch.Tensor
        (…) int64, elements whose reliability is told together.
    count : int
        Components, at most.

    Returns
    -------
    torch.Tensor
        (count, …); those that there are too few people for are zero.
    """
    shape, n_people = first.shape[1:], len(first)
    components = first.new_zeros(count, group.numel())
    kept = min(count, n_people - 1, group.numel())
    if n_people < LEAST_PEOPLE or kept < 1:
        return components.view(count, *shape)
    one, other = ((half - half.mean(0)).flatten(1) for half in (first, second))
    whole = (one + other) / 2
    index = group.flatten().to(first.device)
    totals = one.new_zeros(2, int(index.max()) + 1)
    true, found = totals.index_add(
        1, index, torch.stack([(one * other).sum(0), whole.square().sum(0)])
    )
    reliable = (true / found.clamp(min=1e-12)).clamp(0, 1).sqrt()
    own = whole * reliable[index] / (n_people - 1) ** 0.5
    _, sizes, axes = torch.linalg.svd(own, full_matrices=False)
    components[:kept] = sizes[:kept, None] * axes[:kept]
    return components.view(count, *shape)


def difference(components: Tensor, person: int) -> Tensor:
    """Draw how a person differs from the mean, (…): the same for the same seed.

    Parameters
    ----------
    components : torch.Tensor
        (Q, …) of `between_people`.
    person : int
        Seed of the person.
    """
    generator = torch.Generator().manual_seed(person)
    weights = torch.randn(len(components), generator=generator).to(components)
    return torch.tensordot(weights, components, dims=1)
