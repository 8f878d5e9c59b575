"""Build a small seeded model without training, whose responses are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import Bold
from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.config.diffusion import BackboneConfig, DenoiserConfig, ResponseConfig
from fmrisynth.config.model import ModelConfig, PreprocessConfig, SamplingConfig
from fmrisynth.model.denoiser.conditioning import Condition, RunCondition, Vocabulary, collate
from fmrisynth.model.info import ModelInfo
from fmrisynth.model.model import Model
from fmrisynth.model.response import Response
from fmrisynth.preprocess.grid import Grid
from fmrisynth.preprocess.splits import Split
from fmrisynth.synthesis.synthesiser import sample_latents

SHAPE = (16, 16, 16)
LATENT = (8, 8, 8)
N_FRAMES = 8
T_R = 2.0
HIGH_PASS = 1 / 128
TASKS = {"motor": ("foot", "hand"), "wm": ("two", "zero")}
VOCABULARY = Vocabulary(
    tuple((task, name) for task, names in TASKS.items() for name in names),
    tuple(TASKS),
    ("i", "j"),
    ("here",),
    10,
)
BACKBONE = BackboneConfig(widths=(8, 16), blocks=(1, 1), condition_width=16, head_width=8)
DENOISER = DenoiserConfig(n_frames=N_FRAMES, backbone=BACKBONE)
RESPONSE = ResponseConfig(rank=4, width=4)
NO_RESPONSE = replace(RESPONSE, kind="none")
PEAK = 2.0  # % signal change of each condition where it is active


def affine_of(shape: tuple[int, int, int] = SHAPE, size: float = 4.0) -> np.ndarray:
    """A lattice centred on the origin."""
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = -size * (np.array(shape) - 1) / 2
    return affine


def ball(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A brain that leaves the corners empty."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    return (grid**2).sum(0) < 0.9


def regions() -> dict[str, np.ndarray]:
    """Latent voxels where each trial type is active, all of them inside the brain."""
    places = {"foot": (3, 3), "hand": (5, 3), "two": (3, 5), "zero": (5, 5)}
    found = {}
    for name, (x, y) in places.items():
        found[name] = np.zeros(LATENT, bool)
        found[name][x - 1 : x + 1, y - 1 : y + 1, 3:5] = True
    return found


def upsampled(latent: np.ndarray) -> np.ndarray:
    """Latent voxels on the model grid."""
    return latent.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def make_run(**more: Any) -> Run:
    """A run that is nowhere on disk."""
    values: dict[str, Any] = {
        "entities": {"sub": "01", "task": "motor"},
        "bold": Path("sub-01_task-motor_bold.nii.gz"),
        "mask": None,
        "events": Path("sub-01_task-motor_events.tsv"),
        "space": None,
        "resolution": None,
        "t_r": T_R,
        "start_time": 0.0,
        "shape": SHAPE,
        "n_volumes": 40,
        "affine": affine_of(),
        "phase_encoding": "j",
        "site": "here",
    }
    return Run(**(values | more))


def blocks(*names: str, first: float = 4.0, gap: float = 20.0, duration: float = 8.0):
    """Blocks of trial types, one after the other, as `read_events` returns them."""
    onsets = first + gap * np.arange(len(names))
    return pd.DataFrame({"onset": onsets, "duration": duration, "trial_type": list(names)})


def make_bold(n_volumes: int = 40, t_r: float = T_R, seed: int = 0) -> Bold:
    """A brain of 1000 units with 1 % of white noise."""
    rng = np.random.default_rng(seed)
    mask = ball()
    mean = rng.uniform(900, 1100, SHAPE)
    data = mean[..., None] * (1 + 0.01 * rng.standard_normal((*SHAPE, n_volumes)))
    return Bold((data * mask[..., None]).astype(np.float32), affine_of(), mask, t_r)


def run_condition(events: pd.DataFrame, **more: Any) -> RunCondition:
    """Condition of a run with a random but fixed anatomy."""
    run = make_run(**more)
    anatomy = np.random.default_rng(1).standard_normal((2, *SHAPE)) * ball()
    return RunCondition(run, events, anatomy, VOCABULARY, run.n_volumes, HIGH_PASS)


def batch(*conditions: Condition) -> Condition:
    """Windows as one batch."""
    return collate(conditions)


def perturb(module: torch.nn.Module, size: float, seed: int = 0) -> None:
    """Move every weight, those that start at zero too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def smooth_fields(mask: torch.Tensor, count: int, length: int, lag1: float = 0.6):
    """Fields (N, C = 1, X, Y, Z), correlated in space and time, of unit variance."""
    generator = torch.Generator().manual_seed(3)
    fields = []
    for _ in range(count):
        white = torch.randn(length + 20, 1, *mask.shape, generator=generator)
        smooth = white + sum(white.roll(shift, axis) for axis in (2, 3, 4) for shift in (1, -1))
        for t in range(1, len(smooth)):
            smooth[t] = lag1 * smooth[t - 1] + (1 - lag1**2) ** 0.5 * smooth[t]
        fields.append((smooth[20:] / 7**0.5) * mask)
    return fields


def make_model(
    denoiser: DenoiserConfig = DENOISER,
    response: ResponseConfig = RESPONSE,
    *,
    wildness: float = 0.0,
    space: str | None = None,
    vocabulary: Vocabulary = VOCABULARY,
) -> Model:
    """A whole model: means of 2³ blocks as latents, responses as `regions` says.

    `wildness` is how far the backbone's weights are moved from their start, at
    which it predicts nothing.
    """
    torch.manual_seed(0)
    config = ModelConfig(
        preprocess=PreprocessConfig(voxel_size=4.0, high_pass=HIGH_PASS),
        autoencoder=VQGANConfig(
            latent_channels=1,
            base_width=4,
            multipliers=(1,),
            norm_groups=2,
            patch=2,
            linear_path=True,
            quantizer="none",
        ),
        denoiser=denoiser,
        response=response,
        sampling=SamplingConfig(sampler="euler", steps=6, stride=4),
    )
    info = ModelInfo(config, vocabulary, Split(("01", "02"), ("03",)), 1.0, space, {"seed": 0})
    model = Model.unfitted(info, Grid(SHAPE, affine_of(), ball()))
    model.autoencoder.set_linear_path(torch.full((1, 8), 8**-0.5), torch.full((1,), 8**0.5))
    # an empty basis: no drift was removed from these fields
    model.noise.fit(smooth_fields(model.latent_space.mask, 4, 40), np.zeros((40, 0)))
    model.denoiser.attach(model.noise.mode_maps)
    if model.response.present:
        set_responses(model.response)
    if wildness:
        perturb(model.denoiser.backbone, wildness)
    inside = torch.from_numpy(ball())
    model.noise_level.typical_sd[inside] = 1.0
    model.decoder_noise.decoded_sd[inside] = 1.0
    model.decoder_noise.error_sd[inside] = 0.2
    return model


def set_responses(response: Response) -> None:
    """One map per trial type, its response without the derivative."""
    response.maps.zero_()
    response.coefficients.zero_()
    for index, (_, name) in enumerate(VOCABULARY.trial_types):
        response.maps[index, 0] = torch.from_numpy(regions()[name]).float()
        response.coefficients[index, 0, index] = PEAK


def with_backbone(**changes: Any) -> DenoiserConfig:
    """`DENOISER` with another backbone."""
    return replace(DENOISER, backbone=replace(BACKBONE, **changes))


def latents_of(
    model: Model,
    condition: RunCondition,
    sampling: SamplingConfig,
    generator: torch.Generator,
    participant: int = 0,
    level: torch.Tensor | None = None,
    intensity: torch.Tensor | None = None,
) -> torch.Tensor:
    """Latents of a run whose noise is as a typical run's, and as loud in every frame."""
    level = torch.ones(LATENT) if level is None else level
    intensity = torch.ones(condition.n_volumes) if intensity is None else intensity
    return sample_latents(model, condition, level, intensity, sampling, generator, participant)
