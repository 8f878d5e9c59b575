"""From runs to a trained model: grid, residuals, autoencoder, latents, noise, diffusion."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from tqdm import tqdm

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold, load_mask
from fmrisynth.checkpoints import hash_json
from fmrisynth.compression.train import AutoencoderLearner
from fmrisynth.compression.vqgan import VQGAN
from fmrisynth.configuration import to_json
from fmrisynth.diffusion.conditioning import RunCondition, Vocabulary
from fmrisynth.diffusion.denoiser import Denoiser
from fmrisynth.diffusion.train import DiffusionLearner, Windows, start_evoked
from fmrisynth.errors import DataError
from fmrisynth.latents import cached_latents
from fmrisynth.model import Model, ModelConfig, ModelInfo, ObservationNoise
from fmrisynth.noise import ColouredNoise, unfiltered
from fmrisynth.preprocess.grid import Grid, choose_grid
from fmrisynth.preprocess.splits import choose_split
from fmrisynth.preprocess.store import Frames, RunData, prepare_runs, run_key
from fmrisynth.preprocess.volumes import removed_basis
from fmrisynth.training import Budget, run_learner

__all__ = ["TrainingPlan", "learn_model"]

AUTOENCODER_SHARE = 0.35  # of a wall-clock budget
DIFFUSION_SHARE = 0.6  # the rest is encoding and noise
GRID_MASKS = 64  # masks that decide the grid, at most
STATISTICS_RUNS = 48  # runs that the noise is estimated from, at most
ENCODE_AT_ONCE = 16

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
    data = _prepare(training, grid, plan, work_dir)
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
    model.observation = _observe(model, data, latents, conditions, plan.seed, fabric)
    model.denoiser = _train_denoiser(model, latents, conditions, plan, diffusion_folder, fabric)
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
    key = hash_json([settings, plan.seed, plan.max_steps, plan.max_seconds, source])
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


def _prepare(runs: Sequence[Run], grid: Grid, plan: TrainingPlan, work_dir: Path) -> list[RunData]:
    """Bring the runs onto the grid; leave out those that cannot be used."""
    data, failed = prepare_runs(
        runs,
        grid,
        plan.config.preprocess,
        work_dir / "residuals",
        nprocs=plan.nprocs,
        progress=_progress("Reading runs", len(runs)),
    )
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
            for piece in frames[:, None].split(ENCODE_AT_ONCE):
                pieces.append(autoencoder.encode(piece.to(fabric.device)).float().cpu())
        return torch.cat(pieces).numpy()

    progress = _progress("Encoding", len(keys))
    return cached_latents(keys, encode, folder / "latents", progress)


def _some(count: int, seed: int) -> list[int]:
    """Choose the runs that statistics are taken from, seeded and sorted."""
    chosen = np.random.default_rng(seed).permutation(count)[:STATISTICS_RUNS]
    return sorted(int(i) for i in chosen)


def _fit_noise(
    model: Model, data: Sequence[RunData], latents: Sequence[np.ndarray], seed: int
) -> None:
    """Give the diffusion's noise the colour of the standardised latents."""
    if not isinstance(model.noise, ColouredNoise):
        return
    device = model.space.mask.device
    model.noise.fit(
        (
            model.space.standardise(torch.from_numpy(np.asarray(latents[i], np.float32)).to(device))
            for i in tqdm(_some(len(latents), seed), desc="Noise", unit="run")
        ),
        _typical_basis(model, data),
    )


def _typical_basis(model: Model, data: Sequence[RunData]) -> np.ndarray:
    """Return what is taken out of a run of median length, see `removed_basis`."""
    typical = sorted(data, key=lambda d: len(d.frames))[len(data) // 2]
    high_pass = model.info.config.preprocess.high_pass
    return removed_basis(len(typical.frames), typical.run.t_r, high_pass)


def _observe(
    model: Model,
    data: Sequence[RunData],
    latents: Sequence[np.ndarray],
    conditions: Sequence[RunCondition],
    seed: int,
    fabric: Fabric,
) -> ObservationNoise:
    """Measure what the autoencoder keeps and loses of the training runs."""
    mask = model.grid.mask
    sums = _Sums(len(model.info.vocabulary.trial_types))
    for i in tqdm(_some(len(data), seed), desc="Observation noise", unit="run"):
        frames = np.asarray(data[i].frames, np.float32)[:, mask]  # T V, %
        decoded = []
        with torch.inference_mode(), fabric.autocast():
            raw = torch.from_numpy(np.asarray(latents[i], np.float32)).to(fabric.device)
            for piece in raw.split(ENCODE_AT_ONCE):
                decoded.append(model.autoencoder.decode(piece)[:, 0].float().cpu())
        series = torch.cat(decoded).numpy()[:, mask] * model.info.scale
        sums.add(frames, series, conditions[i].design.evoked[..., 0])
    observation = ObservationNoise(model.grid.shape)
    inside = torch.from_numpy(mask)
    observation.decoded_sd[inside] = torch.from_numpy(np.sqrt(sums.kept / sums.count)).float()
    observation.lost_sd[inside] = torch.from_numpy(np.sqrt(sums.lost / sums.count)).float()
    observed = float(np.mean(sums.products / np.maximum(sums.lost, 1e-9)))
    underlying = unfiltered(np.array([1.0, observed]), _typical_basis(model, data))
    observation.lag1.fill_(underlying[1] / underlying[0])
    observation.evoked_gain.fill_(sums.evoked_gain())
    log.info(
        "the autoencoder keeps %.3f of the residuals' variance and %.3f of evoked amplitudes",
        1 - float(np.sum(sums.lost) / np.sum(sums.kept + sums.lost)),
        float(observation.evoked_gain),
    )
    return observation


class _Sums:
    """Running sums over runs of what the autoencoder keeps (x̂) and loses (x − x̂)."""

    def __init__(self, n_trial_types: int) -> None:
        self.kept = self.lost = self.products = np.zeros(1)
        self.count = 0
        # regressor products and regressor-signal products, in two halves of each run
        self._moments = np.zeros((2, n_trial_types, n_trial_types))
        self._true: list[Any] = [0.0, 0.0]
        self._decoded: list[Any] = [0.0, 0.0]

    def add(self, frames: np.ndarray, decoded: np.ndarray, regressors: np.ndarray) -> None:
        """Add a run: frames and decoded (T, V), regressors (T, K)."""
        rest = frames - decoded
        rest -= rest.mean(0)
        self.kept = self.kept + np.square(decoded).sum(0)
        self.lost = self.lost + np.square(rest).sum(0)
        self.products = self.products + (rest[1:] * rest[:-1]).sum(0)
        self.count += len(frames)
        middle = len(frames) // 2
        for half, part in enumerate((slice(None, middle), slice(middle, None))):
            x = regressors[part]
            self._moments[half] += x.T @ x
            self._true[half] = self._true[half] + x.T @ frames[part]
            self._decoded[half] = self._decoded[half] + x.T @ decoded[part]

    def evoked_gain(self) -> float:
        """Slope of decoded on true effects, by instrumental variables.

        Both effects are noisy, and the noise is decoded too. Effects of the
        other halves of the runs serve as instrument: their noise is all but
        independent, so only what is evoked counts.
        """
        ridge = 1e-3 * np.trace(self._moments.sum(0)) / len(self._moments[0])
        inverse = [np.linalg.inv(m + ridge * np.eye(len(m))) for m in self._moments]
        true = [i @ t for i, t in zip(inverse, self._true, strict=True)]
        decoded = [i @ d for i, d in zip(inverse, self._decoded, strict=True)]
        numerator = (decoded[0] * true[1]).sum() + (decoded[1] * true[0]).sum()
        denominator = 2 * (true[0] * true[1]).sum()
        if not denominator > 0:
            return 1.0
        log.debug("unclipped evoked gain %.3f", numerator / denominator)
        return float(np.clip(numerator / denominator, 0.25, 1.0))


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
    return learner.averaged
