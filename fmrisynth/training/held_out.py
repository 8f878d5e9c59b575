"""Measure a model's skill on the participants that it has never seen.

Their responses and their noise are unknown: the response model predicts from events and mean
image, and a run's noise level is that of the participant's other runs. The network is judged on
what it is for, the noise that is left once a run's own response is taken out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fmrisynth.bids.dataset import Run
from fmrisynth.model.codec import encode_run
from fmrisynth.model.model import Model
from fmrisynth.model.run_statistics import draw_evoked
from fmrisynth.model.skill import Skill
from fmrisynth.preprocess.cache import RunData, run_key
from fmrisynth.training.intensity import log_energy
from fmrisynth.training.latents import cached_latents
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.prepare import (
    condition_of,
    prepare_runs_on_grid,
    read_events_of,
    typical_removed_basis,
)
from fmrisynth.training.skill import ValidationWindows, measure_skill
from fmrisynth.training.window_noise import WindowNoise
from fmrisynth.training.windows import LatentRuns

__all__ = ["held_out_windows", "measure_held_out"]

MAXIMUM_RUNS = 6  # of a participant, which say enough

log = logging.getLogger(__name__)


def measure_held_out(
    model: Model,
    runs: Sequence[Run],
    plan: TrainingPlan,
    work_dir: Path,
    latents_dir: Path,
    fabric: Fabric,
) -> tuple[Skill, ...]:
    """Measure the gain of every part on the held-out participants.

    Parameters
    ----------
    model, runs, plan, work_dir, latents_dir, fabric
        As for `held_out_windows`.

    Returns
    -------
    tuple of Skill
        Empty where nobody was held out.
    """
    found = held_out_windows(model, runs, plan, work_dir, latents_dir, fabric)
    if found is None:
        log.info("no participant was held out that skill could be measured on")
        return ()
    windows, mean_of, evoked_of = found
    denoiser = model.denoiser.to(fabric.device)
    with fabric.autocast():
        skill = measure_skill(denoiser, windows, mean_of, evoked_of)
    denoiser.cpu()
    for row in skill:
        log.info(
            "skill at %.2f: %s %+.4f (%.4f to %.4f)",
            row.theta, row.part, row.gain, row.ci_low, row.ci_high,
        )  # fmt: skip
    return tuple(skill)


def held_out_windows(
    model: Model,
    runs: Sequence[Run],
    plan: TrainingPlan,
    work_dir: Path,
    latents_dir: Path,
    fabric: Fabric,
) -> tuple[ValidationWindows, Callable[[int], Tensor], Callable[[int], Tensor]] | None:
    """Prepare the runs of the held-out participants.

    What is known of a run is computed when it is asked for: memory does not grow with the runs.

    Parameters
    ----------
    model : Model
        The trained parts.
    runs : sequence of Run
        All runs of the dataset.
    plan : TrainingPlan
        Seed and processes.
    work_dir, latents_dir : pathlib.Path
        Caches of residuals and of the autoencoder's latents.
    fabric : lightning_fabric.Fabric
        Device and precision.

    Returns
    -------
    windows : ValidationWindows
        With the noise that is inferred for each run from the participant's others.
    mean_of : callable
        Returns the response model's prediction for a run by its index, in units of the
        standardised latents, (N, C, x, y, z).
    evoked_of : callable
        Returns what events evoked in a run, in the same form: drawn from what the run says of it;
        nothing where the network has to learn the responses.
    None
        Nobody was held out.
    """
    config, info = model.info.config, model.info
    held_out = _some_runs([r for r in runs if info.split.role(r.participant) == "held_out"])
    events = read_events_of(held_out) if held_out else {}
    held_out = [r for r in held_out if r.bold in events]
    data = prepare_runs_on_grid(held_out, model.grid, plan, work_dir, fabric) if held_out else []
    if not data:
        return None
    conditions = [
        condition_of(d, events[d.run.bold], info.vocabulary, config.preprocess) for d in data
    ]
    keys = [run_key(d.run, model.grid, config.preprocess) for d in data]

    def encode(index: int) -> np.ndarray:
        with fabric.autocast():
            return encode_run(model.autoencoder, data[index].frames, info.scale, model.grid.mask)

    latents = cached_latents(keys, encode, latents_dir)
    levels = [model.noise_level.of_latents(sd) for sd in _other_runs_sd(data)]
    latent_runs = LatentRuns(
        latents, conditions, levels, [d.run.participant for d in data], model.latent_space
    )
    lags = model.response.prior.autocovariance.numpy()

    @torch.no_grad()
    def mean_of(index: int) -> Tensor:
        evoked = torch.from_numpy(conditions[index].design.evoked)
        with torch.autocast("cpu", enabled=False):  # the network's precision is not that of means
            mean: Tensor = model.response(evoked, torch.from_numpy(data[index].mean).float())
        return mean

    def evoked_of(index: int) -> Tensor:
        if model.response.present:
            return _evoked(latent_runs, index, lags, plan.seed)
        return torch.zeros_like(mean_of(index))

    noise_runs = latent_runs  # with the intensities that are still to be measured

    def rest_of(index: int) -> Tensor:
        return noise_runs.noise(index) - mean_of(index) / levels[index]

    removed = typical_removed_basis(data, config.preprocess)
    noise = WindowNoise.infer(
        model.noise.cpu(), rest_of, latent_runs.participants, removed, plan.seed, work_dir
    )
    if config.noise_level:
        courses = (log_energy(rest_of(i), model.noise) for i in range(len(latent_runs)))
        intensities = [model.intensity.of_run(course) for course in courses]
        latent_runs = replace(latent_runs, intensities=intensities)
    windows = ValidationWindows(latent_runs, noise, config.denoiser.n_frames, plan.seed)
    return windows, mean_of, evoked_of


def _evoked(runs: LatentRuns, index: int, autocovariance: np.ndarray, seed: int) -> Tensor:
    """Draw what events evoked in a run, (N, C, x, y, z) standardised."""
    rng, z = np.random.default_rng([seed, index]), runs.standardised(index)
    field = torch.zeros(len(z), runs.latent_space.channels, *runs.mask.shape)
    drawn = draw_evoked(runs.regressors(index), z, autocovariance, rng)
    field[..., runs.mask] = torch.from_numpy(drawn).float().view(*field.shape[:2], -1)
    return field


def _some_runs(runs: Sequence[Run]) -> list[Run]:
    """Keep some runs of each participant, spread over those there are."""
    by_participant: dict[str, list[Run]] = {}
    for run in runs:
        by_participant.setdefault(run.participant, []).append(run)
    return [
        mine[i]
        for mine in by_participant.values()
        for i in np.unique(np.linspace(0, len(mine) - 1, MAXIMUM_RUNS).round().astype(int))
    ]


def _other_runs_sd(data: Sequence[RunData]) -> Iterator[np.ndarray]:
    """Take each run's noise from the participant's other runs; from itself where it is alone."""
    for index, run in enumerate(data):
        others = [
            d.noise_sd
            for i, d in enumerate(data)
            if i != index and d.run.participant == run.run.participant
        ]
        yield np.mean(others, axis=0) if others else run.noise_sd
