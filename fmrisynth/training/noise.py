"""Fit the diffusion's noise model to what responses and noise levels leave of the latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fmrisynth.model.noise.factory import make_noise
from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.runtime.progress import track
from fmrisynth.training.prepare import STATISTICS_RUNS, TrainingData, sample_runs
from fmrisynth.training.windows import LatentRuns

__all__ = ["fit_noise"]

STATISTICS_FRAMES = 8192  # that the noise is estimated from, where the runs are short
INDIVIDUAL_RUNS = 1024  # runs that individual differences are estimated from, at most


def fit_noise(
    runs: LatentRuns,
    data: TrainingData,
    seed: int,
    device: torch.device,
) -> NoiseModel:
    """Fit the noise model that the settings ask for.

    Parameters
    ----------
    runs : LatentRuns
        Training runs, with the participants' own responses.
    data : TrainingData
        Settings and mask.
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
        for i in track(chosen, desc=title, unit="run"):
            yield runs.noise(i).to(device)

    noise = make_noise(data.config, data.latent_mask).to(device)
    # short runs say less each
    frames = sum(len(latents) for latents in runs.latents) / len(runs)
    most = max(STATISTICS_RUNS, int(STATISTICS_FRAMES / frames))
    noise.fit(fields(sample_runs(len(runs), seed, most), "Noise"), data.removed_basis)
    first: dict[str, int] = {}  # run of each participant
    for index, label in enumerate(runs.participants):
        first.setdefault(label, index)
    chosen = sample_runs(len(runs), seed, INDIVIDUAL_RUNS)
    chosen.sort(key=lambda i: first[runs.participants[i]])
    noise.fit_individual_differences(
        fields(chosen, "Individual networks"), [runs.participants[i] for i in chosen]
    )
    return noise.cpu()
