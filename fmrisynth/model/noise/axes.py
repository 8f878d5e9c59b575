"""Find the principal axes of runs, and those that a run had no part in.

Legend: N frames, D features, K axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["principal_axes", "unseen_axes", "unseen_courses"]

FOLDS = 4  # of participants, whose runs see axes of the others
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


def unseen_axes(runs: Sequence[Tensor], count: int) -> list[Tensor]:
    """Compute the principal axes of all runs but those of a run's fold, for each run.

    What is fitted to a run has more of the run's variance, and slower courses, than it has in
    others: what axes explain, and what they leave, is to be read from runs that they never saw.

    Parameters
    ----------
    runs : sequence of Tensor of shape (N, D)
        Ordered by participant, which folds are to share as little as possible.
    count : int
        Axes K.

    Returns
    -------
    list of Tensor of shape (D, K)
        Orthonormal; of a single run, its own.
    """
    folds = min(FOLDS, len(runs))
    fold_of = [index * folds // len(runs) for index in range(len(runs))]
    axes = []
    for fold in range(folds):
        others = [run for run, own in zip(runs, fold_of, strict=True) if own != fold]
        axes.append(principal_axes(torch.cat(others or list(runs)), count))
    return [axes[fold] for fold in fold_of]


def unseen_courses(runs: Sequence[Tensor], unseen: Sequence[Tensor], axes: Tensor) -> list[Tensor]:
    """Project runs on axes that they had no part in.

    Axes beyond what the other runs can hold are as overfitted as the last that these hold.

    Parameters
    ----------
    runs : sequence of Tensor of shape (N, D)
        As for `unseen_axes`.
    unseen : sequence of Tensor of shape (D, K)
        Axes of each run, as `unseen_axes` returns them.
    axes : Tensor of shape (D, K)
        Axes of all runs.

    Returns
    -------
    list of Tensor of shape (N, K)
        Courses of each run.
    """
    courses = [run @ other for run, other in zip(runs, unseen, strict=True)]
    power = torch.cat(courses).square().mean(0)
    held = int((power > 0).sum())
    if 0 < held < len(power):
        fitted = [run @ axes for run in runs]
        share = power[held - 1] / torch.cat(fitted)[:, held - 1].square().mean().clamp(min=1e-8)
        for course, own in zip(courses, fitted, strict=True):
            course[:, held:] = own[:, held:] * share.clamp(max=1).sqrt()
    return courses
