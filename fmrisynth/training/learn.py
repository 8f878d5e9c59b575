"""From runs to a trained model: grid, residuals, autoencoder, latents, noise, diffusion."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold, load_mask
from fmrisynth.config.codec import to_json
from fmrisynth.config.model import ModelConfig
from fmrisynth.errors import DataError
from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.model.denoiser.conditioning import RunCondition, Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.model import FORMAT, Model, ModelInfo
from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.model.weights import hash_json
from fmrisynth.preprocess.cache import Frames, RunData, prepare_runs, run_key
from fmrisynth.preprocess.grid import Grid, choose_grid
from fmrisynth.preprocess.splits import choose_split
from fmrisynth.training.autoencoder import AutoencoderLearner
from fmrisynth.training.decoder_noise import VOLUMES_AT_ONCE, observe, some_of, typical_basis
from fmrisynth.training.diffusion import DiffusionLearner, Windows, fit_people, start_evoked
from fmrisynth.training.latents import cached_latents
from fmrisynth.training.loop import CURVES_NAME, LOG_NAME, Budget, run_learner

__all__ = ["TrainingPlan", "learn_model"]

AUTOENCODER_SHARE = 0.35  # of a wall-clock budget
DIFFUSION_SHARE = 0.6  # the rest is encoding and noise
GRID_MASKS = 64  # masks that decide the grid, at most
PEOPLE_RUNS = 1024  # runs that differences between people are estimated from, at most

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """How a model is to be trained.

    Attributes
    ----------
    config : ModelConfig
        Settings.
    preset : str
        Their name, for the record.
    seed : int
        Of everything random.
    max_steps : int or None
        Cap on the steps of each of the two trainings.
    max_seconds : float or None
        Wall-clock budget of both together, s.
    nprocs : int
        Processes that read runs.
    """

    config: ModelConfig
    preset: str
    seed: int
    max_steps: int | None
    max_seconds: float | None
    nprocs: int

    def budget(self, steps: int, share: float) -> Budget:
        """Budget of one training: the preset's steps, capped, and its share of the time."""
        if self.max_steps is not None:
            steps = min(steps, self.max_steps) if self.max_seconds else self.max_steps
        seconds = None if self.max_seconds is None else self.max_seconds * share
        return Budget(steps, seconds)


def _progress(title: str, total: int) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Wrap an iterable in a named progress bar."""
    return lambda items: tqdm(items, desc=title, total=total, unit="run")


def learn_model(runs: Sequence[Run], plan: TrainingPlan, work_dir: Path, fabric: Fabric) -> Model:
    """Train a model on the participants of a dataset that are not held out.

    Parameters
    ----------
    runs : sequence of Run
        All runs of the dataset.
    plan : TrainingPlan
        Settings, seed, budget.
    work_dir : pathlib.Path
        Caches and training states; a training that was interrupted goes on
        from there.
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
    """
    config = plan.config
    split = choose_split((r.participant for r in runs), config.held_out_share, plan.seed)
    training = [r for r in runs if split.role(r.participant) == "training"]
    log.info("training on %d participants, %d held out", len(split.training), len(split.held_out))
    tables = _read_tables(training)
    training = [r for r in training if r.bold in tables]
    grid = _choose_grid(training, config)
    data = _prepare(training, grid, plan, work_dir, fabric)
    training = [d.run for d in data]
    scale = Frames.global_scale(data, grid.mask, plan.seed)
    events = [tables[r.bold] for r in training]
    vocabulary = Vocabulary.of(training, events)
    keys = [run_key(r, grid, config.preprocess) for r in training]
    provenance: dict[str, Any] = {"preset": plan.preset, "seed": plan.seed, "runs": len(training)}
    info = ModelInfo(config, vocabulary, split, scale, training[0].space, provenance)
    model = Model(info, grid)
    settings = to_json(config)
    settings.pop("sampling")
    autoencoder_folder = _folder(work_dir, "autoencoder", plan, [keys, to_json(split)], settings)
    diffusion_folder = _folder(work_dir, "diffusion", plan, autoencoder_folder.name, settings)

    model.autoencoder = _train_autoencoder(data, grid, plan, scale, autoencoder_folder, fabric)
    latents = _encode(model, data, keys, autoencoder_folder, fabric)
    model.space.fit(latents).to("cpu")
    model.to(fabric.device)
    _fit_noise(model, data, latents, plan.seed)
    conditions = [
        _condition(d, e, info, config.preprocess.high_pass)
        for d, e in zip(data, events, strict=True)
    ]
    model.observation = observe(model, data, latents, conditions, plan.seed, fabric)
    model.denoiser = _train_denoiser(
        model, latents, conditions, training, plan, diffusion_folder, fabric
    )
    for stage, folder in (("autoencoder", autoencoder_folder), ("diffusion", diffusion_folder)):
        for name in (LOG_NAME, CURVES_NAME):
            stem, _, suffix = name.partition(".")
            if (folder / name).is_file():  # rank 0 alone has written it
                model.records[f"{stem}-{stage}.{suffix}"] = folder / name
    return model.to(torch.device("cpu"))


def _read_tables(runs: Sequence[Run]) -> dict[Path, pd.DataFrame]:
    """Events of the runs, by image; runs whose events cannot be used are left out."""
    tables, problems = {}, []
    for run in runs:
        try:
            tables[run.bold] = read_events(run.events, duration=run.duration)
        except DataError as error:
            problems.append(str(error))
            log.warning("left out of training: %s", error)
    if not tables:
        raise DataError(f"No training run has events that can be used: {'; '.join(problems[:3])}")
    return tables


def _folder(
    work_dir: Path, stage: str, plan: TrainingPlan, source: Any, settings: dict[str, Any]
) -> Path:
    """Folder of one training, named by all that decides its result.

    The autoencoder does not depend on the diffusion's settings: models that
    differ in those alone share it.
    """
    if stage == "autoencoder":
        names = ("preprocess", "autoencoder", "autoencoder_training", "autoencoder_steps")
        settings = {name: settings[name] for name in names}
    key = hash_json([FORMAT, settings, plan.seed, plan.max_steps, plan.max_seconds, source])
    return work_dir / f"{stage}-{key[:16]}"


def _choose_grid(runs: Sequence[Run], config: ModelConfig) -> Grid:
    """Choose the model grid from a spread of the training runs' masks."""
    chosen = runs[:: max(1, len(runs) // GRID_MASKS)]
    masks = []
    for run in tqdm(chosen, desc="Brain masks", unit="run"):
        try:
            mask = load_mask(run)
            masks.append((load_bold(run).mask if mask is None else mask, run.affine))
        except DataError as error:
            log.warning("not asked for its brain mask: %s", error)
    if not masks:
        raise DataError(
            f"None of the {len(chosen)} runs looked at has a usable brain mask; see the log."
        )
    # the network's strides: the autoencoder's and one halving per level; the denoiser pads its own
    multiple = config.autoencoder.factor
    grid = choose_grid(masks, config.preprocess.voxel_size, multiple)
    log.info("model grid %s, %d brain voxels", grid.shape, grid.mask.sum())
    return grid


def _prepare(
    runs: Sequence[Run], grid: Grid, plan: TrainingPlan, work_dir: Path, fabric: Fabric
) -> list[RunData]:
    """Bring the runs onto the grid; leave out those that cannot be used."""

    def prepare(some: Sequence[Run]) -> tuple[list[RunData], dict[Path, str]]:
        return prepare_runs(
            some,
            grid,
            plan.config.preprocess,
            work_dir / "residuals",
            nprocs=plan.nprocs,
            progress=_progress("Reading runs", len(some)),
        )

    if fabric.world_size > 1:  # each process reads its share; all then find all of them cached
        prepare(runs[fabric.global_rank :: fabric.world_size])
        fabric.barrier()
    data, failed = prepare(runs)
    for path, reason in failed.items():
        log.warning("left out of training: %s: %s", path, reason)
    length = plan.config.denoiser.n_frames
    long_enough = [d for d in data if len(d.frames) >= length]
    for d in data:
        if len(d.frames) < length:
            log.warning(
                "left out of training: %s has %d volumes, a window has %d",
                d.run.bold, len(d.frames), length,
            )  # fmt: skip
    if not long_enough:
        reasons = "; ".join(list(failed.values())[:3])
        raise DataError(
            f"None of the {len(runs)} training runs can be used: {reasons or 'all are too short'}. "
            f"Expected at least one readable run of {length} volumes."
        )
    return long_enough


def _train_autoencoder(
    data: Sequence[RunData],
    grid: Grid,
    plan: TrainingPlan,
    scale: float,
    folder: Path,
    fabric: Fabric,
) -> VQGAN:
    """Train the VQ-GAN on the training runs' volumes."""
    config = plan.config
    learner = AutoencoderLearner(
        fabric,
        config.autoencoder,
        config.autoencoder_training,
        Frames(data, scale),
        grid.mask,
        seed=plan.seed,
    )
    budget = plan.budget(config.autoencoder_steps, AUTOENCODER_SHARE)
    run_learner(learner, budget, fabric=fabric, directory=folder, title="Autoencoder")
    return learner.averaged


def _encode(
    model: Model, data: Sequence[RunData], keys: list[str], folder: Path, fabric: Fabric
) -> list[np.ndarray]:
    """Encode the training runs, once."""
    autoencoder = model.autoencoder.to(fabric.device)

    def encode(index: int) -> np.ndarray:
        frames = torch.from_numpy(np.asarray(data[index].frames, np.float32)) / model.info.scale
        pieces = []
        with torch.inference_mode(), fabric.autocast():
            for piece in frames[:, None].split(VOLUMES_AT_ONCE):
                pieces.append(autoencoder.encode(piece.to(fabric.device)).float().cpu())
        return torch.cat(pieces).numpy()

    cache, progress = folder / "latents", _progress("Encoding", len(keys))
    if fabric.world_size > 1:
        mine = range(fabric.global_rank, len(keys), fabric.world_size)
        cached_latents([keys[i] for i in mine], lambda i: encode(mine[i]), cache)
        fabric.barrier()
    return cached_latents(keys, encode, cache, progress)


def _fit_noise(
    model: Model, data: Sequence[RunData], latents: Sequence[np.ndarray], seed: int
) -> None:
    """Give the diffusion's noise the colour of the standardised latents."""
    if isinstance(model.noise, WhiteNoise):
        return
    device = model.space.mask.device

    def fields(chosen: Sequence[int], title: str) -> Iterator[Tensor]:
        for i in tqdm(chosen, desc=title, unit="run"):
            raw = torch.from_numpy(np.asarray(latents[i], np.float32))
            yield model.space.standardise(raw.to(device))

    model.noise.fit(fields(some_of(len(latents), seed), "Noise"), typical_basis(model, data))
    if isinstance(model.noise, ModalNoise) and len(model.noise.differences):
        chosen = some_of(len(latents), seed, PEOPLE_RUNS)
        people = [data[i].run.participant for i in chosen]
        model.noise.fit_people(fields(chosen, "Networks"), people)


def _condition(
    data: RunData, events: pd.DataFrame, info: ModelInfo, high_pass: float
) -> RunCondition:
    """Condition of a training run."""
    anatomy = np.stack([data.mean, data.noise_sd])
    return RunCondition(data.run, events, anatomy, info.vocabulary, len(data.frames), high_pass)


def _train_denoiser(
    model: Model,
    latents: Sequence[np.ndarray],
    conditions: Sequence[RunCondition],
    runs: Sequence[Run],
    plan: TrainingPlan,
    folder: Path,
    fabric: Fabric,
) -> Denoiser:
    """Train the diffusion model on windows of the cached latents."""
    config = plan.config
    torch.manual_seed(plan.seed)
    channels = config.autoencoder.latent_channels
    denoiser = Denoiser(
        config.denoiser,
        model.info.vocabulary,
        channels,
        model.space.to("cpu").mask,
        config.autoencoder.factor,
    )
    windows = Windows(
        latents,
        conditions,
        model.space,
        config.denoiser.n_frames,
        config.diffusion_training.onset_share,
    )
    start_evoked(denoiser, windows)
    learner = DiffusionLearner(
        fabric, denoiser, config.diffusion_training, windows, model.noise.to("cpu"), plan.seed
    )
    budget = plan.budget(config.diffusion_steps, DIFFUSION_SHARE)
    run_learner(learner, budget, fabric=fabric, directory=folder, title="Diffusion")
    denoiser = learner.averaged.to("cpu")
    fit_people(denoiser, windows, [run.participant for run in runs])
    return denoiser
