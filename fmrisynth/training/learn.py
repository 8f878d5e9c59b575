"""Learn a model from runs, one fitted part after the other: the order of the whole training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric

from fmrisynth.bids.dataset import Run
from fmrisynth.model.info import ModelInfo
from fmrisynth.model.intensity import FrameIntensity
from fmrisynth.model.model import Model
from fmrisynth.runtime.devices import exact_for_grid
from fmrisynth.training.autoencoder import fit_autoencoder
from fmrisynth.training.carriers import fit_carriers
from fmrisynth.training.decoder_noise import fit_decoder_noise
from fmrisynth.training.denoiser import fit_denoiser
from fmrisynth.training.held_out import measure_held_out
from fmrisynth.training.individuals import map_gradients
from fmrisynth.training.intensity import expect_intensities, fit_intensity
from fmrisynth.training.latent_space import fit_latent_space
from fmrisynth.training.latents import encode_latents
from fmrisynth.training.motion import fit_motion
from fmrisynth.training.noise import fit_noise
from fmrisynth.training.noise_level import fit_noise_level
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.prepare import prepare_training
from fmrisynth.training.provenance import Stopwatch, training_provenance, training_records
from fmrisynth.training.response import fit_response
from fmrisynth.training.validation import choose_validation
from fmrisynth.training.window_noise import WindowNoise
from fmrisynth.training.windows import LatentRuns

__all__ = ["learn_model"]

NOISE_LAGS = 16  # of autoregressions, as many as any noise model has


def learn_model(runs: Sequence[Run], plan: TrainingPlan, work_dir: Path, fabric: Fabric) -> Model:
    """Train a model on the participants of a dataset that are not held out.

    Parameters
    ----------
    runs : sequence of Run
        All runs of the dataset.
    plan : TrainingPlan
        Settings, seed, budget.
    work_dir : pathlib.Path
        Caches and training states; an interrupted training goes on from there.
    fabric : lightning_fabric.Fabric
        Device, precision, processes.

    Returns
    -------
    Model
        On the CPU.

    Raises
    ------
    DataError
        No run is usable.
    ModelError
        A checkpoint to start from, or a training state, cannot be used.
    """
    start, timed = plan.read_initial_state(), Stopwatch()  # a wrong file stops at once
    with timed("prepare"):
        data = prepare_training(runs, plan, work_dir, fabric)
    fabric = exact_for_grid(fabric, data.grid.shape, plan.config.denoiser.backbone.stem)
    folders = plan.folders(work_dir, data.source)
    with timed("autoencoder"):
        autoencoder = fit_autoencoder(data, plan, start, folders.autoencoder, fabric)
    with timed("latents"):
        latents = encode_latents(autoencoder, data, folders.autoencoder, fabric)
        noise_level = fit_noise_level(data)
        levels = [noise_level.of_latents(run.noise_sd) for run in data.runs]
        latent_space = fit_latent_space(latents, levels, data)
    with timed("response"):
        latent_runs = LatentRuns(latents, data.conditions, levels, data.participants, latent_space)
        learners, watched = choose_validation(
            data.participants, plan.config.diffusion_training, plan.seed
        )
        response, latent_runs = fit_response(
            latent_runs,
            data,
            plan,
            folders.diffusion,
            lambda maps: map_gradients(maps, autoencoder, latent_space, data),
            watched,
        )
    with timed("noise"):
        noise = unseen = fit_noise(latent_runs, data, plan.seed, fabric.device)
        if watched:  # the network is chosen and gated by participants whom nothing was fitted to
            unseen = fit_noise(latent_runs.of(learners), data, plan.seed, fabric.device)
        intensity = FrameIntensity()
        if plan.config.noise_level:
            intensity, latent_runs = fit_intensity(latent_runs, noise, plan.seed)
            lags = max(NOISE_LAGS, plan.config.denoiser.n_frames)
            fitted = [(noise, latent_runs)]
            if watched:
                fitted.append((unseen, latent_runs.of(learners)))
            for fitted_noise, of_runs in fitted:
                expect_intensities(
                    fitted_noise, intensity, of_runs, data.removed_basis, lags, plan.seed
                )
        with_bursts = replace(latent_runs, intensities=None)
        window_noise = WindowNoise.infer(
            unseen, with_bursts.noise, data.participants, data.removed_basis, plan.seed, work_dir
        )
    with timed("decoder_noise"):
        decoder_noise = fit_decoder_noise(
            autoencoder, latents, data, noise_level, latent_runs.intensities, plan.seed, fabric
        )
    autoencoder.cpu()  # the device's memory is the denoiser's from here on
    with timed("denoiser"):
        denoiser = fit_denoiser(
            latent_runs, window_noise, data, plan, folders.diffusion, fabric, watched
        )
        denoiser.backbone.condition.average_unlearned(
            torch.cat([condition.attributes for condition in data.conditions])
        )
    info = ModelInfo(plan.config, data.vocabulary, data.split, data.scale, data.space, {})
    model = Model(
        info,
        data.grid,
        autoencoder,
        noise_level,
        latent_space,
        response,
        noise,
        intensity,
        decoder_noise,
        denoiser,
        fit_carriers(data, plan.seed),
        fit_motion([run.run for run in data.runs]),
        training_records(folders),
    )
    with timed("skill"):
        skill = measure_held_out(
            model, runs, plan, work_dir, folders.autoencoder / "latents", fabric
        )
    provenance = training_provenance(plan, data, folders, timed.seconds)
    return replace(model, info=replace(info, provenance=provenance), skill=skill)
