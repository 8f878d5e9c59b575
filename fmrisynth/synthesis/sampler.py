"""Turn noise into a sample by the velocity v = cos θ · ε − sin θ · x_0, with pure functions.

Along the probability-flow path dx/dθ = v. Each sampler calls `velocity(x, θ)` once a
step. Stochastic steps draw noise of the same covariance as the diffusion's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from torch import Tensor

__all__ = ["SAMPLERS", "ddim", "ddpm", "dpmpp_2m", "euler"]

Velocity = Callable[[Tensor, float], Tensor]
DrawNoise = Callable[[], Tensor]
Progress = Callable[[Iterable[int]], Iterable[int]]


def euler(
    velocity: Velocity, x: Tensor, angles: Tensor, draw: DrawNoise, steps: Progress = iter
) -> Tensor:
    """Integrate dx/dθ = v with the two-step Adams–Bashforth rule (Euler at first).

    It preserves the variance of a sample. DDIM with few steps does not: where v is zero,
    each of its steps multiplies the sample by cos δ.
    """
    previous: tuple[float, Tensor] | None = None
    for i in steps(range(len(angles) - 1)):
        theta, to = float(angles[i]), float(angles[i + 1])
        v = velocity(x, theta)
        step = to - theta
        if previous is None:
            x = x + step * v
        else:
            ratio = step / previous[0] / 2
            x = x + step * ((1 + ratio) * v - ratio * previous[1])
        previous = (step, v)
    return x


def ddim(
    velocity: Velocity, x: Tensor, angles: Tensor, draw: DrawNoise, steps: Progress = iter
) -> Tensor:
    """Rotate by δ each step: deterministic DDIM (Song et al. 2021, eq. 12 with η = 0)."""
    for i in steps(range(len(angles) - 1)):
        theta, delta = float(angles[i]), float(angles[i] - angles[i + 1])
        x = math.cos(delta) * x - math.sin(delta) * velocity(x, theta)
    return x


def ddpm(
    velocity: Velocity, x: Tensor, angles: Tensor, draw: DrawNoise, steps: Progress = iter
) -> Tensor:
    """Sample ancestrally (Ho et al. 2020, alg. 2, with the posterior variance β̃)."""
    for i in steps(range(len(angles) - 1)):
        theta, to = float(angles[i]), float(angles[i + 1])
        x0, noise = _split(x, theta, velocity(x, theta))
        sin_t, cos_t, sin_s, cos_s = math.sin(theta), math.cos(theta), math.sin(to), math.cos(to)
        deviation = sin_s / sin_t * math.sqrt(max(0.0, 1 - (cos_t / cos_s) ** 2))
        x = cos_s * x0 + math.sqrt(max(0.0, sin_s**2 - deviation**2)) * noise
        if deviation > 0:
            x = x + deviation * draw()
    return x


def dpmpp_2m(
    velocity: Velocity, x: Tensor, angles: Tensor, draw: DrawNoise, steps: Progress = iter
) -> Tensor:
    """Integrate in λ = log cot θ with DPM-Solver++(2M) (Lu et al. 2022, alg. 2)."""
    previous: tuple[float, Tensor] | None = None
    for i in steps(range(len(angles) - 1)):
        theta, to = float(angles[i]), float(angles[i + 1])
        x0, _ = _split(x, theta, velocity(x, theta))
        h = _log_cot(to) - _log_cot(theta)
        data = x0
        if previous is not None and math.isfinite(previous[0]) and math.isfinite(h):
            ratio = h / previous[0] / 2
            data = (1 + ratio) * x0 - ratio * previous[1]
        # e^{-h} written as a ratio of tangents, finite at both ends
        x = (
            math.sin(to) / math.sin(theta) * x
            + (math.cos(to) - math.sin(to) * math.cos(theta) / math.sin(theta)) * data
        )
        previous = (h, x0)
    return x


def _split(x: Tensor, theta: float, v: Tensor) -> tuple[Tensor, Tensor]:
    """Compute (x_0, ε) from x and v at angle θ."""
    cos, sin = math.cos(theta), math.sin(theta)
    return cos * x - sin * v, sin * x + cos * v


def _log_cot(theta: float) -> float:
    """Compute λ = log(cos θ / sin θ), infinite at the ends."""
    if theta <= 0:
        return math.inf
    cot = math.cos(theta) / math.sin(theta)
    return math.log(cot) if cot > 1e-6 else -math.inf


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "euler": euler,
    "ddim": ddim,
    "ddpm": ddpm,
    "dpmpp-2m": dpmpp_2m,
}
"""The samplers by the names that the command line knows."""
