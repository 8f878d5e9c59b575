"""A condition can be learned: closed-form conditional means in a world of a few voxels.

Latents are m(c) + n: m is the sum over trial types of a known map times its regressor, n is noise
of several times its variance, and the diffusion's ε has the covariance of n. At every angle
E[v | x, c] is then −sin θ · m(c), which the backbone learns here in place of v.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from support.tiny_model import make_run, smooth_fields
from torch import Tensor

from fmrisynth.config.diffusion import BackboneConfig, DenoiserConfig
from fmrisynth.model.denoiser.conditioning import Condition, RunCondition, Vocabulary, collate
from fmrisynth.model.denoiser.denoiser import Denoiser

GRID, PATCH, CHANNELS, FRAMES, N_VOLUMES, BATCH = (5, 6, 5), 2, 2, 16, 60, 8
TYPES = ("face", "foot", "hand", "tool")
WORDS = Vocabulary(tuple(("motor", name) for name in TYPES), ("motor",), ("i", "j"), ("here",), 10)
BACKBONE = BackboneConfig(widths=(16, 32), blocks=(1, 1), condition_width=32, head_width=16)
STEPS, RATE = 150, 3e-3
RESPONSE_VARIANCE = 0.15  # of the latents' variance; the rest is noise


Seen = Callable[[Condition], Condition]


@dataclass(frozen=True)
class World:
    """Maps (V, C, X, Y, Z), noise fields (N, T', X, Y, Z), runs to learn from and others."""

    maps: Tensor
    fields: Tensor
    runs: list[RunCondition]
    held_out: list[RunCondition]

    def mean(self, condition: Condition) -> Tensor:
        """m(c), (B, T, C, X, Y, Z)."""
        return torch.einsum("btv,vcxyz->btcxyz", condition.evoked[..., 0], self.maps)

    def noise(self, count: int, rng: np.random.Generator) -> Tensor:
        """(B, T, C, X, Y, Z), a piece of another field for each window and channel."""
        fields = rng.integers(len(self.fields), size=(count, CHANNELS))
        starts = rng.integers(self.fields.shape[1] - FRAMES, size=(count, CHANNELS))
        frames = starts[:, None] + np.arange(FRAMES)[:, None]
        return self.fields[fields[:, None], frames] * (1 - RESPONSE_VARIANCE) ** 0.5

    def draw(self, runs: list[RunCondition], count: int, rng: np.random.Generator) -> Condition:
        """Windows of any run, from any frame on."""
        chosen = rng.integers(len(runs), size=count)
        starts = rng.integers(N_VOLUMES - FRAMES, size=count)
        return collate([runs[i].window(s, FRAMES) for i, s in zip(chosen, starts, strict=True)])

    def noisy(self, condition: Condition, theta: Tensor, rng: np.random.Generator) -> Tensor:
        """x_θ = cos θ · x_0 + sin θ · ε."""
        cos, sin = (f(theta).view(-1, 1, 1, 1, 1, 1) for f in (torch.cos, torch.sin))
        latents = self.mean(condition) + self.noise(len(theta), rng)
        return cos * latents + sin * self.noise(len(theta), rng)


def random_run(rng: np.random.Generator) -> RunCondition:
    """Blocks of 10 s in random order, one after the other or with a rest between them."""
    names = rng.permutation(TYPES * 2)
    onsets = 2.0 + np.cumsum(rng.choice([10.0, 14.0, 20.0], size=len(names)))
    events = pd.DataFrame({"onset": onsets, "duration": 10.0, "trial_type": names})
    anatomy = rng.standard_normal((2, *(PATCH * n for n in GRID)))
    run = make_run(n_volumes=N_VOLUMES)
    return RunCondition(run, events, anatomy, WORDS, N_VOLUMES, 1 / 128)


@cache
def world() -> World:
    rng, mask = np.random.default_rng(0), torch.ones(GRID)
    fields = torch.stack([f[:, 0] for f in smooth_fields(mask, len(TYPES) * CHANNELS + 12, 60)])
    maps = fields[: len(TYPES) * CHANNELS, 0].view(len(TYPES), CHANNELS, *GRID)
    runs = [random_run(rng) for _ in range(24)]
    power = np.mean([(run.design.evoked[..., 0] ** 2).sum(1).mean() for run in runs])
    maps = maps / maps.std() * float(RESPONSE_VARIANCE / power) ** 0.5
    return World(maps, fields[len(TYPES) * CHANNELS :], runs[:16], runs[16:])


def denoiser_of(backbone: BackboneConfig) -> Denoiser:
    torch.manual_seed(0)
    config = DenoiserConfig(FRAMES, backbone=backbone)
    return Denoiser(config, WORDS, CHANNELS, torch.ones(GRID, dtype=torch.bool), PATCH)


def as_it_is(condition: Condition) -> Condition:
    return condition


def without_condition(condition: Condition) -> Condition:
    return condition.unconditional()


def without_events(condition: Condition) -> Condition:
    return replace(condition, frames=torch.zeros_like(condition.frames))


def learn(denoiser: Denoiser, steps: int, seen: Seen = as_it_is) -> None:
    """Regress −sin θ · m(c) on noisy windows and what is `seen` of their conditions."""
    truth, rng = world(), np.random.default_rng(1)
    optimizer = torch.optim.AdamW(denoiser.parameters(), RATE, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 10, (steps - step) / 50)
        condition = truth.draw(truth.runs, BATCH, rng)
        theta = torch.from_numpy((rng.random(BATCH) * math.pi / 2).astype(np.float32))
        out = denoiser(truth.noisy(condition, theta, rng), theta, seen(condition))
        target = -theta.sin().view(-1, 1, 1, 1, 1, 1) * truth.mean(condition)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(out, target).backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def predicted_means(denoiser: Denoiser, seen: Seen = as_it_is) -> tuple[Tensor, Tensor, Condition]:
    """Return predicted and true m(c) of new designs, near θ = π/2 where x says nothing of m."""
    truth, rng = world(), np.random.default_rng(2)
    condition = truth.draw(truth.held_out, 32, rng)
    theta = torch.full((32,), 1.5)
    predicted = -denoiser(truth.noisy(condition, theta, rng), theta, seen(condition))
    return predicted, truth.mean(condition), condition


def correlation(denoiser: Denoiser) -> float:
    """Mean correlation of the true maps with those that a GLM finds in the predicted means."""
    predicted, _, condition = predicted_means(denoiser)
    courses = condition.evoked[..., 0].flatten(0, 1)
    maps = torch.linalg.lstsq(courses, predicted.flatten(0, 1).flatten(1)).solution
    pairs = zip(maps, world().maps.flatten(1), strict=True)
    return float(np.mean([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]))


def skill(denoiser: Denoiser, seen: Seen = as_it_is) -> float:
    """Share of the true means' sum of squares that is predicted; 0 for a prediction of zero."""
    predicted, mean, _ = predicted_means(denoiser, seen)
    return 1 - float((predicted - mean).square().sum() / mean.square().sum())


FORMS = {
    "hybrid": {},
    "All-CNN": {"architecture": "cnn"},
    "All-Transformer": {"architecture": "transformer"},
    "AdaLN only": {"cross_attention": False},
    "plain Transformer": {"architecture": "dit", "widths": (64,), "blocks": (2,)},
    "without frame components": {"frame_components": 0},
    "stem": {"stem": 2},
    # the narrowest that MONAI's network can match
    "MONAI": {"architecture": "monai", "widths": (48, 96)},
}
SLOW = set(FORMS) - {"hybrid"}


@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=[pytest.mark.slow] if f in SLOW else []) for f in FORMS]
)
def test_every_architecture_learns_the_conditional_mean(
    form: str, request: pytest.FixtureRequest
) -> None:
    if form == "MONAI":
        request.getfixturevalue("monai")
    denoiser = denoiser_of(replace(BACKBONE, **FORMS[form]))
    learn(denoiser, STEPS)
    assert correlation(denoiser) > 0.5
    assert skill(denoiser) > 0.25
    for cut in (without_condition, without_events):
        assert skill(denoiser, cut) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("cut", [without_condition, without_events])
def test_nothing_is_learned_from_a_condition_that_is_cut(cut: Seen) -> None:
    denoiser = denoiser_of(BACKBONE)
    learn(denoiser, STEPS, cut)
    assert skill(denoiser, cut) < 0.05
