"""Fit the diffusion's noise model to the standardised latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.noise.factory import make_noise
from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.training.prepare import TrainingData, sample_runs

__all__ = ["fit_noise"]

INDIVIDUAL_RUNS = 1024  # runs that individual differences are estimated from, at most


def fit_noise(
    latents: Sequence[np.ndarray],
    latent_space: LatentSpace,
    data: TrainingData,
    seed: int,
    device: torch.device,
) -> NoiseModel:
    """Fit the noise model that the settings ask for.

    Parameters
    ----------
    latents : sequence of ndarray of shape (N, C, x, y, z)
        Raw latents of each run.
    latent_space : LatentSpace
        Standardisation, on the CPU.
    data : TrainingData
        The runs that the latents are of.
    seed : int
        Seed of the choice of runs.
    device : torch.device
        Where to compute.

    Returns
    -------
    NoiseModel
        On the CPU.
    """

    def fields(chosen: Sequence[int], title: str) -> Iterator[Tensor]:
        for i in tqdm(chosen, desc=title, unit="run"):
            raw = torch.from_numpy(np.asarray(latents[i], np.float32))
            yield latent_space.standardise(raw).to(device)

    noise = make_noise(data.config, data.latent_mask).to(device)
    noise.fit(fields(sample_runs(len(latents), seed), "Noise"), data.removed_basis)
    chosen = sample_runs(len(latents), seed, INDIVIDUAL_RUNS)
    noise.fit_individual_differences(
        fields(chosen, "Individual networks"), [data.participants[i] for i in chosen]
    )
    return noise.cpu()
