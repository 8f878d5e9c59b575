"""Find the principal axes of runs, and how much of their variance other runs have there.

Legend: N frames, D features, K axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["principal_axes", "unseen_share"]

OVERSAMPLING, POWER_ITERATIONS = 16, 4  # of the randomised decomposition


def principal_axes(rows: Tensor, count: int) -> Tensor:
    """Compute the first principal axes of rows (N, D), orthonormal (D, count), repeatably.

    Where there are fewer rows than axes, the missing axes are zero.
    """
    available = min(count, *rows.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the randomised range finder
        width = min(available + OVERSAMPLING, *rows.shape)
        axes = torch.svd_lowrank(rows, q=width, niter=POWER_ITERATIONS)[2]
    padded = rows.new_zeros(rows.shape[1], count)
    padded[:, :available] = axes[:, :available]
    return padded


def unseen_share(runs: Sequence[Tensor], courses: Sequence[Tensor]) -> Tensor:
    """Estimate the modes' variance in runs that they were not fitted to, over that seen, (K,).

    Parameters
    ----------
    runs : sequence of Tensor of shape (N, D)
        Ordered by participant, which the halves are to share as little as possible.
    courses : sequence of Tensor of shape (N, K)
        Of the modes that were fitted to these runs.
    """
    count, half = courses[0].shape[1], len(runs) // 2
    seen = torch.cat(list(courses)).square().mean(0).clamp(min=1e-8)
    if not half:
        return torch.ones(count)
    halves = torch.cat(list(runs[:half])), torch.cat(list(runs[half:]))
    unseen = torch.zeros(count)
    for fitted, other in (halves, halves[::-1]):
        axes = principal_axes(fitted, count)
        unseen += (other @ axes).square().sum(0).cpu() / sum(len(h) for h in halves)
    # axes beyond what half of the runs can hold are as overfitted as the last ones
    known = unseen > 0
    share = torch.where(known, unseen / seen.cpu(), 1).clamp(max=1)
    last = int(known.nonzero().max()) if known.any() else 0
    return torch.where(known, share, share[last]).to(seen)
