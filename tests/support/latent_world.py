"""Simulated participants in latent space, whose responses and noise are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.config.diffusion import ResponseConfig
from fmrisynth.config.model import ModelConfig
from fmrisynth.model.denoiser.conditioning import RunCondition
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.response import Response
from fmrisynth.preprocess.grid import Grid
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.response import fit_response
from fmrisynth.training.windows import LatentRuns
from support.tiny_model import HIGH_PASS, VOCABULARY, blocks, make_run

SMALL = (4, 4, 4)
FACTOR = 2
EDGE = 10.0  # mm, of a voxel of the model grid
MASK = torch.ones(SMALL, dtype=torch.bool)
MASK[0, 0] = False
NAMES = [name for _, name in VOCABULARY.trial_types]
EVENTS = (
    blocks("hand", "foot", "hand", "foot"),
    blocks("foot", "foot", "hand", "hand"),
    blocks("hand", "hand", "foot", "foot"),
)


@dataclass
class World:
    """Runs, what a training knows of them, and the truth.

    Attributes
    ----------
    runs : LatentRuns
        Two runs of each participant.
    data : SimpleNamespace
        What the fits of `fmrisynth.training` read of TrainingData.
    maps : ndarray of shape (S, V, P)
        Response of each participant to each trial type.
    """

    runs: LatentRuns
    data: Any
    maps: np.ndarray


def patterns() -> np.ndarray:
    """Maps (V, P) of hand and foot: smooth, in different places; the others do not respond."""
    places = np.argwhere(MASK.numpy())
    maps = np.zeros((len(NAMES), len(places)))
    for name, centre in (("hand", (1, 1, 1)), ("foot", (3, 2, 2))):
        distance = np.square(places - np.array(centre)).sum(1)
        maps[NAMES.index(name)] = 2 * np.exp(-distance / 3)
    return maps


def simulate(
    maps: np.ndarray,
    means: np.ndarray | None = None,
    *,
    noise: float | np.ndarray = 1.0,
    n_volumes: int = 48,
    n_runs: int = 2,
    seed: int = 0,
    levels: np.ndarray | None = None,
) -> World:
    """Simulate participants.

    Parameters
    ----------
    maps : ndarray of shape (S, V, P)
        Responses, to the HRF regressor.
    means : ndarray of shape (S, X, Y, Z) or None
        Mean images on the model grid; None for equal ones.
    noise : float
        Standard deviation of white noise.
    n_volumes, n_runs : int
        Frames of a run, and runs of a participant.
    seed : int
        Seed of the noise.
    levels : ndarray of shape (S,) or None
        Noise level of each participant, which multiplies the noise.
    """
    rng = np.random.default_rng(seed)
    grid = tuple(FACTOR * n for n in SMALL)
    means = np.ones((len(maps), *grid)) if means is None else means
    levels = np.ones(len(maps)) if levels is None else levels
    latents, conditions, labels, runs = [], [], [], []
    for s, own in enumerate(maps):
        for number in range(n_runs):
            label = f"{s:02d}"
            entities = {"sub": label, "task": "motor", "run": str(number + 1)}
            events = EVENTS[(s + number) % len(EVENTS)]
            anatomy = np.stack([means[s], np.ones(grid)])
            condition = RunCondition(
                make_run(entities=entities), events, anatomy, VOCABULARY, n_volumes, HIGH_PASS
            )
            series = condition.design.evoked[..., 0] @ own
            series = series + levels[s] * noise * rng.standard_normal(series.shape)
            z = np.zeros((n_volumes, 1, *SMALL), np.float32)
            z[:, 0, MASK.numpy()] = series
            latents.append(z)
            conditions.append(condition)
            labels.append(label)
            run = SimpleNamespace(participant=label, task="motor")
            runs.append(SimpleNamespace(run=run, mean=means[s].astype(np.float32)))
    space = LatentSpace(1, MASK)
    level_maps = [torch.full(SMALL, float(levels[int(label)])) for label in labels]
    autoencoder = VQGANConfig(
        latent_channels=1,
        multipliers=(1,),
        patch=FACTOR,
        linear_path=True,
        convolutional=False,
        quantizer="none",
    )
    data = SimpleNamespace(
        config=ModelConfig(autoencoder=autoencoder),
        runs=tuple(runs),
        conditions=tuple(conditions),
        participants=labels,
        vocabulary=VOCABULARY,
        latent_mask=MASK,
        grid=Grid(
            grid, np.diag([*[EDGE] * 3, 1.0]), MASK.numpy().repeat(2, 0).repeat(2, 1).repeat(2, 2)
        ),
    )
    return World(LatentRuns(latents, conditions, level_maps, labels, space), data, maps)


def latent_gradients(maps: torch.Tensor) -> torch.Tensor:
    """Change of maps (J, C, x, y, z) per mm, between neighbouring latent voxels."""
    differences = [(maps.roll(-1, k) - maps.roll(1, k)) / (2 * FACTOR * EDGE) for k in (2, 3, 4)]
    return torch.stack(differences) * MASK


def fit_response_of(
    world: World, folder: Path, config: ResponseConfig
) -> tuple[Response, LatentRuns]:
    """Fit the response model, and the runs with their participants' own responses."""
    world.data.config = replace(world.data.config, response=config)
    plan = TrainingPlan(world.data.config, "test", 0, None, None, 1)
    everyone = set(world.data.participants)
    return fit_response(world.runs, world.data, plan, folder, latent_gradients, everyone)
