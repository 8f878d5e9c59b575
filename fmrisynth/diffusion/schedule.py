"""Noise schedules, all as an angle: x_θ = cos θ · x_0 + sin θ · ε, with θ from 0 to π/2.

cos²θ is the ᾱ of Ho et al. 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """How angles are spread over training and sampling.

    Attributes
    ----------
    kind : str
        ``angular``: θ uniform on (0, π/2), this project's default.
        ``linear``: β linear between `beta_start` and `beta_end`.
        ``scaled_linear``: √β linear; what the code that the published values
        come from calls "linear".
    n_steps : int
        Discrete steps of the β schedules.
    beta_start, beta_end : float
        First and last β.
    """

    kind: str = "angular"
    n_steps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0195

    def __post_init__(self) -> None:
        """Refuse a kind that does not exist."""
        if self.kind not in ("angular", "linear", "scaled_linear"):
            raise ValueError(
                f"schedule is {self.kind!r}; expected angular, linear or scaled_linear"
            )

    def alphas_bar(self) -> Tensor:
        """ᾱ_t = Π (1 − β_s) for t = 1 … n, float64 (Ho et al. 2020, eq. 4)."""
        if self.kind == "linear":
            betas = torch.linspace(
                self.beta_start, self.beta_end, self.n_steps, dtype=torch.float64
            )
        else:
            root = torch.linspace(
                self.beta_start**0.5, self.beta_end**0.5, self.n_steps, dtype=torch.float64
            )
            betas = root**2
        return torch.cumprod(1 - betas, dim=0)

    def angles(self) -> Tensor:
        """θ_t of the discrete steps, increasing, float32."""
        if self.kind == "angular":
            return (torch.arange(1, self.n_steps + 1) / self.n_steps) * (math.pi / 2)
        return torch.acos(self.alphas_bar().sqrt()).float()

    def training_angles(self, uniform: Tensor) -> Tensor:
        """θ for numbers drawn uniformly from [0, 1)."""
        if self.kind == "angular":
            return uniform * (math.pi / 2)
        index = (uniform * self.n_steps).long().clamp(max=self.n_steps - 1)
        return self.angles().to(uniform.device)[index]

    def sampling_angles(self, steps: int) -> Tensor:
        """Decreasing θ of a sampler, (steps + 1,), from pure noise to 0.

        The β schedules have no more steps than `n_steps`.
        """
        if self.kind == "angular":
            return torch.linspace(math.pi / 2, 0, steps + 1)
        index = torch.linspace(self.n_steps - 1, 0, steps).round().long().unique().flip(0)
        return torch.cat([self.angles()[index], torch.zeros(1)])
