"""Compute noise schedules as angles θ from 0 to π/2: x_θ = cos θ · x_0 + sin θ · ε.

cos²θ is the ᾱ of Ho et al. 2020.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmrisynth.config.diffusion import ScheduleConfig

__all__ = ["alphas_bar", "discrete_angles", "sampling_angles", "training_angles"]


def alphas_bar(schedule: ScheduleConfig) -> Tensor:
    """Compute ᾱ_t = Π (1 − β_s) for t = 1 … n, float64 (Ho et al. 2020, eq. 4)."""
    if schedule.kind == "linear":
        betas = torch.linspace(
            schedule.beta_start, schedule.beta_end, schedule.n_steps, dtype=torch.float64
        )
    else:
        root = torch.linspace(
            schedule.beta_start**0.5, schedule.beta_end**0.5, schedule.n_steps, dtype=torch.float64
        )
        betas = root**2
    return torch.cumprod(1 - betas, dim=0)


def discrete_angles(schedule: ScheduleConfig) -> Tensor:
    """Compute θ_t of the discrete steps, increasing, float32."""
    if schedule.kind == "angular":
        return (torch.arange(1, schedule.n_steps + 1) / schedule.n_steps) * (math.pi / 2)
    return torch.acos(alphas_bar(schedule).sqrt()).float()


def training_angles(schedule: ScheduleConfig, uniform: Tensor) -> Tensor:
    """Map numbers drawn uniformly from [0, 1) to the θ of training."""
    if schedule.kind == "angular":
        return uniform * (math.pi / 2)
    index = (uniform * schedule.n_steps).long().clamp(max=schedule.n_steps - 1)
    return discrete_angles(schedule).to(uniform.device)[index]


def sampling_angles(schedule: ScheduleConfig, steps: int) -> Tensor:
    """Compute the decreasing θ of a sampler, (steps + 1,), from pure noise to 0.

    The β schedules have no more steps than `n_steps`.
    """
    if schedule.kind == "angular":
        return torch.linspace(math.pi / 2, 0, steps + 1)
    index = torch.linspace(schedule.n_steps - 1, 0, steps).round().long().unique().flip(0)
    return torch.cat([discrete_angles(schedule)[index], torch.zeros(1)])
