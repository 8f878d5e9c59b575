"""Prepare the training data: split, events, model grid, residuals on the grid, conditions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_mask
from fmrisynth.config.codec import to_json
from fmrisynth.config.model import ModelConfig, PreprocessConfig
from fmrisynth.errors import DataError
from fmrisynth.model.autoencoder.vqgan import latent_mask
from fmrisynth.model.denoiser.conditioning import RunCondition, Vocabulary
from fmrisynth.preprocess.cache import Frames, RunData, prepare_runs, run_key
from fmrisynth.preprocess.carrier import removed_basis
from fmrisynth.preprocess.grid import Grid, choose_grid
from fmrisynth.preprocess.run_maps import StackedMaps
from fmrisynth.preprocess.splits import Split, choose_split
from fmrisynth.runtime.progress import track
from fmrisynth.training.plan import TrainingPlan

__all__ = [
    "STATISTICS_RUNS",
    "TrainingData",
    "condition_of",
    "prepare_runs_on_grid",
    "prepare_training",
    "progress_bar",
    "read_events_of",
    "sample_runs",
    "typical_removed_basis",
]

LARGEST_LATENT = 32.0  # mm, edge beyond which other settings are recommended
GRID_MASKS = 64  # masks that decide the grid, at most
STATISTICS_RUNS = 48  # runs that noise is estimated from, at most

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Hold all that the stages of a training learn from.

    Attributes
    ----------
    config : ModelConfig
        Settings.
    runs : tuple of RunData
        Training runs on the model grid, memory-mapped.
    conditions : tuple of RunCondition
        Events, attributes and anatomy of each run.
    grid : Grid
        The model grid.
    split : Split
        Training and held-out participants.
    vocabulary : Vocabulary
        Trial types and attributes in the training runs.
    scale : float
        Global divisor of the volumes, %.
    keys : tuple of str
        Hash of all that each run's volumes depend on.
    """

    config: ModelConfig
    runs: tuple[RunData, ...]
    conditions: tuple[RunCondition, ...]
    grid: Grid
    split: Split
    vocabulary: Vocabulary
    scale: float
    keys: tuple[str, ...]

    @property
    def participants(self) -> list[str]:
        """Participant label of each run."""
        return [data.run.participant for data in self.runs]

    @property
    def space(self) -> str | None:
        """Space of the training runs."""
        return self.runs[0].run.space_name

    @property
    def source(self) -> Any:
        """All that the data depend on, as JSON."""
        return [list(self.keys), to_json(self.split)]

    @cached_property
    def latent_mask(self) -> Tensor:
        """Latent voxels that hold brain, (x, y, z) bool."""
        return latent_mask(torch.from_numpy(self.grid.mask), self.config.autoencoder.factor)

    @cached_property
    def removed_basis(self) -> np.ndarray:
        """Mean and drift that were removed from a run of median length, (N, K) orthonormal."""
        return typical_removed_basis(self.runs, self.config.preprocess)


def prepare_training(
    runs: Sequence[Run], plan: TrainingPlan, work_dir: Path, fabric: Fabric
) -> TrainingData:
    """Prepare the runs of the participants that are not held out.

    Parameters
    ----------
    runs : sequence of Run
        All runs of the dataset.
    plan : TrainingPlan
        Settings, seed, processes.
    work_dir : pathlib.Path
        Holds the cache of the residuals.
    fabric : lightning_fabric.Fabric
        Processes, which share the reading.

    Raises
    ------
    DataError
        No run is usable.
    """
    config = plan.config
    split = choose_split((r.participant for r in runs), config.held_out_share, plan.seed)
    training = [r for r in runs if split.role(r.participant) == "training"]
    log.info("training on %d participants, %d held out", len(split.training), len(split.held_out))
    events_by_run = read_events_of(training)
    training = [r for r in training if r.bold in events_by_run]
    grid = _choose_grid(training, config)
    data = prepare_runs_on_grid(training, grid, plan, work_dir, fabric)
    training = [d.run for d in data]
    events = [events_by_run[r.bold] for r in training]
    vocabulary = Vocabulary.of(training, events)
    return TrainingData(
        config,
        tuple(data),
        tuple(
            condition_of(*pair, vocabulary, config.preprocess)
            for pair in zip(data, events, strict=True)
        ),
        grid,
        split,
        vocabulary,
        Frames.global_scale(data, grid.mask, plan.seed),
        tuple(run_key(r, grid, config.preprocess) for r in training),
    )


def typical_removed_basis(runs: Sequence[RunData], config: PreprocessConfig) -> np.ndarray:
    """Compute the mean and drift that a run of median length is without, (N, K) orthonormal."""
    median = sorted(runs, key=lambda d: len(d.frames))[len(runs) // 2]
    return removed_basis(len(median.frames), median.run.t_r, config.removed_high_pass)


def sample_runs(count: int, seed: int, most: int = STATISTICS_RUNS) -> list[int]:
    """Choose the runs that statistics are estimated from, seeded and sorted."""
    chosen = np.random.default_rng(seed).permutation(count)[:most]
    return sorted(int(i) for i in chosen)


def progress_bar(title: str, total: int) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Return a function that wraps an iterable of runs in a named progress bar."""
    return lambda items: track(items, desc=title, total=total, unit="run")


def read_events_of(runs: Sequence[Run]) -> dict[Path, pd.DataFrame]:
    """Read the events of the runs, by image; runs with unusable events are left out."""
    events_by_run, problems = {}, []
    for run in runs:
        try:
            events_by_run[run.bold] = read_events(run.events, duration=run.duration)
        except DataError as error:
            problems.append(str(error))
            log.warning("left out of training: %s", error)
    if not events_by_run:
        raise DataError(f"No training run has events that can be used: {'; '.join(problems[:3])}")
    return events_by_run


def _choose_grid(runs: Sequence[Run], config: ModelConfig) -> Grid:
    """Choose the model grid from a spread of the training runs' masks."""
    chosen = runs[:: max(1, len(runs) // GRID_MASKS)]
    masks = []
    for run in track(chosen, desc="Brain masks", unit="run"):
        try:
            masks.append((load_mask(run), run.affine))
        except DataError as error:
            log.warning("without a usable brain mask: %s", error)
    if not masks:
        raise DataError(
            f"None of {len(chosen)} training runs has a usable brain mask; the log says why."
        )
    # the strides of the autoencoder; the denoiser pads the grid to its own
    multiple = config.autoencoder.factor
    grid = choose_grid(masks, config.preprocess.voxel_size, multiple)
    log.info("model grid %s, %d brain voxels", grid.shape, grid.mask.sum())
    edge = float(np.linalg.norm(grid.affine[:3, 0])) * config.autoencoder.factor
    if edge > LARGEST_LATENT and config.autoencoder.patch > 2:
        log.warning(
            "the images are coarse: a latent voxel is a cube of %.0f mm and keeps little of what "
            "is in it; --set autoencoder.patch=2 keeps more",
            edge,
        )
    return grid


def prepare_runs_on_grid(
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
            progress=progress_bar("Reading runs", len(some)),
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


def condition_of(
    data: RunData, events: pd.DataFrame, vocabulary: Vocabulary, config: PreprocessConfig
) -> RunCondition:
    """Describe a run to the denoiser."""
    anatomy = StackedMaps(data, "mean", "noise_sd")
    return RunCondition(data.run, events, anatomy, vocabulary, len(data.frames), config.high_pass)
