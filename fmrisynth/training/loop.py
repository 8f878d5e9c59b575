"""Run the training loop that autoencoder and denoiser share: budget, schedule, logs, resuming.

Everything random in a training step is drawn from generators seeded by (seed, step,
sample index), so that a resumed training, or one spread over several processes, repeats
an unbroken one.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fmrisynth.errors import FmrisynthError
from fmrisynth.runtime.progress import track
from fmrisynth.training.log import CURVES_NAME, LOG_NAME, TrainingLog, draw_curves
from fmrisynth.training.state import read_training_state, write_training_state

__all__ = [
    "Budget",
    "Ema",
    "Learner",
    "TrainingInterrupted",
    "cosine_warmup",
    "run_learner",
    "shard",
    "step_generator",
]

LOG_EVERY = 10  # steps averaged into one row of the log


class TrainingInterrupted(FmrisynthError):
    """Report that a signal stopped the training, after its state was written."""


@dataclass(frozen=True)
class Budget:
    """Limit a training by steps, by wall-clock time, or by whichever ends first.

    Attributes
    ----------
    max_steps : int
        Largest number of optimisation steps.
    max_seconds : float or None
        Wall-clock limit, s; None limits the steps alone, which makes the training
        repeatable.
    """

    max_steps: int
    max_seconds: float | None = None

    def progress(self, step: int, elapsed: float) -> float:
        """Compute the share of the budget that is used up, in [0, 1]."""
        share = step / self.max_steps
        if self.max_seconds is not None:
            share = max(share, elapsed / self.max_seconds)
        return min(share, 1.0)


class Learner(Protocol):
    """Define what the loop needs of a training."""

    @property
    def finished(self) -> bool:
        """Whether more steps are not worth their time, though the budget has some left."""

    def step(self, step: int, progress: float) -> Mapping[str, float | Tensor]:
        """Make one optimisation step; return the named losses."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs to repeat an unbroken one."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def cosine_warmup(progress: float, warmup: float) -> float:
    """Compute the learning-rate factor: linear warm-up, then half a cosine to zero.

    Parameters
    ----------
    progress : float
        Share of the budget used, in [0, 1].
    warmup : float
        Share of the budget spent warming up.
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def step_generator(seed: int, step: int, index: int = 0) -> torch.Generator:
    """Return a CPU generator that depends on (seed, step, sample index) alone."""
    state = np.random.SeedSequence([seed, step, index]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def shard(global_batch: int, fabric: Fabric) -> range:
    """Return the indices of the global batch that this process handles."""
    if global_batch % fabric.world_size:
        raise FmrisynthError(
            f"A batch of {global_batch} cannot be shared by {fabric.world_size} processes; "
            "choose a number of processes that divides it."
        )
    share = global_batch // fabric.world_size
    return range(fabric.global_rank * share, (fabric.global_rank + 1) * share)


class Ema:
    """Average a module's weights exponentially, with a warm-up for short trainings.

    The decay at update n is min(decay_max, (1 + n) / (10 + n)).
    """

    def __init__(self, module: nn.Module, decay_max: float) -> None:
        self.module = deepcopy(module).eval().requires_grad_(False)
        self.decay_max = decay_max
        self._source = module

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the module's present weights."""
        decay = min(self.decay_max, (1 + step) / (10 + step))
        averaged: list[Tensor] = list(self.module.parameters())
        current = [p.detach() for p in self._source.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for buffer, source in zip(self.module.buffers(), self._source.buffers(), strict=True):
            buffer.copy_(source)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the averaged module."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the averaged module."""
        self.module.load_state_dict(state)


@contextmanager
def _stop_flag() -> Iterator[list[str]]:
    """Collect SIGTERM and SIGUSR1 (SLURM's preemption) instead of ending the process."""
    received: list[str] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)

    try:
        previous = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGUSR1)}
    except ValueError:  # not the main thread: leave the signals to it
        previous = {}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_learner(
    learner: Learner,
    budget: Budget,
    *,
    fabric: Fabric,
    directory: Path,
    title: str,
    checkpoint_seconds: float = 120.0,
) -> None:
    """Train until the budget is used up or the learner finished, resuming from `directory`.

    Parameters
    ----------
    learner : Learner
        The training, step by step.
    budget : Budget
        Limit of the training, which also drives the learning-rate schedule.
    fabric : lightning_fabric.Fabric
        Device, precision and processes; only rank 0 writes.
    directory : pathlib.Path
        Holds ``state.pt``, ``log.csv``, ``tensorboard`` and, at the end, ``curves.png``.
    title : str
        Name of the progress bar.
    checkpoint_seconds : float
        Time between two checkpoints, in s.

    Raises
    ------
    TrainingInterrupted
        On SIGTERM or SIGUSR1, after the state was written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    state_path, log = directory / "state.pt", TrainingLog(directory / LOG_NAME)
    step, spent = 0, 0.0
    state = read_training_state(state_path)
    if state is not None:
        learner.load_state_dict(state["learner"])
        step, spent = int(state["step"]), float(state["elapsed"])
    if fabric.is_global_zero:
        log.open(step)
    started = time.monotonic() - spent

    def save(elapsed: float) -> None:
        content = {"step": step, "elapsed": elapsed, "learner": learner.state_dict()}
        if fabric.is_global_zero:
            write_training_state(state_path, content)

    bar = track(
        total=budget.max_steps,
        initial=step,
        desc=title,
        unit="step",
        disable=not fabric.is_global_zero,
    )
    last_saved = time.monotonic()
    with _stop_flag() as received, bar:
        while True:
            # every process must take the same decision: rank 0's
            elapsed, finished = fabric.broadcast((time.monotonic() - started, learner.finished))
            progress = budget.progress(step, elapsed)
            if finished or progress >= 1:
                break
            losses = log.add(learner.step(step, progress))
            step += 1
            bar.update()
            if step % LOG_EVERY == 0:
                shown = {k: f"{v:.4g}" for k, v in list(losses.items())[:3]}
                bar.set_postfix(shown, refresh=False)
                if fabric.is_global_zero:
                    log.write(step, elapsed)
                log.pending.clear()
            if received or time.monotonic() - last_saved > checkpoint_seconds:
                save(time.monotonic() - started)
                last_saved = time.monotonic()
            if received:
                raise TrainingInterrupted(
                    f"{title}: stopped by {received[0]} at step {step}; the state is in "
                    f"{state_path}. Run the same command again to go on from there."
                )
    save(time.monotonic() - started)
    if fabric.is_global_zero:
        log.write(step, time.monotonic() - started)
        log.close()
        draw_curves(log.path, directory / CURVES_NAME, title)
