"""Training of the denoiser on windows of cached latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from fmrisynth.config.diffusion import DiffusionTraining
from fmrisynth.errors import UsageError
from fmrisynth.model.denoiser.conditioning import Condition, RunCondition, collate
from fmrisynth.model.denoiser.denoiser import RIDGE, Denoiser
from fmrisynth.model.denoiser.schedule import training_angles
from fmrisynth.model.individual_differences import between_people, in_two
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.stationary import ColouredNoise
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.training.diffusion_loss import diffusion_loss
from fmrisynth.training.loop import Ema, cosine_warmup, shard, step_generator

__all__ = ["DiffusionLearner", "Windows", "fit_people", "start_evoked"]


class Windows:
    """Windows of the training runs, drawn at random.

    Parameters
    ----------
    latents : sequence of numpy.ndarray
        Raw latents of each run, (T, C, X, Y, Z), memory-mapped; runs shorter
        than a window have been left out.
    conditions : sequence of RunCondition
        One per run.
    space : LatentSpace
        Standardisation.
    length : int
        Frames of a window.
    onset_share : float
        Share of windows that start at an event's onset.
    """

    def __init__(
        self,
        latents: Sequence[np.ndarray],
        conditions: Sequence[RunCondition],
        space: LatentSpace,
        length: int,
        onset_share: float,
    ) -> None:
        self.latents, self.conditions, self.space = latents, conditions, space
        self.length, self.onset_share = length, onset_share

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Condition]:
        """Standardised latents (1, T, C, X, Y, Z) of one window, and its condition."""
        uniform = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        run = int(uniform[0] * len(self.latents))
        condition, last = self.conditions[run], len(self.latents[run]) - self.length
        start = int(uniform[1] * (last + 1))
        if uniform[2] < self.onset_share and len(condition.onsets):
            start = min(int(condition.onsets[int(uniform[1] * len(condition.onsets))]), last)
        raw = np.asarray(self.latents[run][start : start + self.length], np.float32)
        latents = self.space.standardise(torch.from_numpy(raw))
        return latents[None], condition.window(start, self.length)


def start_evoked(denoiser: Denoiser, windows: Windows) -> None:
    """Start the evoked-response pathway at the regression of the latents on the designs."""
    if denoiser.evoked is None or denoiser.config.evoked.start != "regression":
        return
    mask = windows.space.mask
    moments: Tensor | float = 0.0
    products: Tensor | float = 0.0
    for latents, condition in _shown(windows, "Mean responses"):
        raw = torch.from_numpy(np.asarray(latents, np.float32))
        z = windows.space.standardise(raw)[..., mask].flatten(1).double()  # T C·P
        x = torch.from_numpy(condition.design.evoked).flatten(1).double()  # T V·2
        moments, products = moments + x.T @ x, products + x.T @ z
    assert isinstance(moments, Tensor), "at least one run is needed"
    assert isinstance(products, Tensor)
    denoiser.evoked.start(moments, products, mask)


def _shown(windows: Windows, title: str) -> Iterator[tuple[np.ndarray, RunCondition]]:
    """Go through the runs behind a progress bar."""
    runs = zip(windows.latents, windows.conditions, strict=True)
    yield from tqdm(runs, desc=title, total=len(windows.latents), unit="run")


@torch.no_grad()
def fit_people(denoiser: Denoiser, windows: Windows, people: Sequence[str]) -> None:
    """Give the evoked-response pathway what it is that people's responses differ by.

    What the mean response leaves of each run's latents, within the pathway's
    maps, is regressed on the run's design: person by person, once in each half
    of the person's runs of a task, or of its only one.

    Parameters
    ----------
    denoiser : Denoiser
        Trained; its pathway's differences are set.
    windows : Windows
        The training runs.
    people : sequence of str
        Whose each run is.
    """
    evoked = denoiser.evoked
    if evoked is None or not len(evoked.differences):
        return
    mask = windows.space.mask
    maps = (evoked.maps[..., mask].flatten(1) / len(evoked.maps) ** 0.5).double()  # J C·P
    onto_maps, mean = torch.linalg.pinv(maps), evoked.coefficients.double()
    runs: dict[str, dict[str, list[Tensor]]] = {}  # person → task → (moments | products), V V+J
    every = zip(people, _shown(windows, "People's responses"), strict=True)
    for person, (latents, condition) in every:
        raw = torch.from_numpy(np.asarray(latents, np.float32))
        courses = windows.space.standardise(raw)[..., mask].flatten(1).double() @ onto_maps  # T J
        x = torch.from_numpy(condition.design.evoked).double()  # T V 2
        courses = courses - torch.einsum("tvd,vdj->tj", x, mean)
        parts = [
            part.T @ torch.cat([part, rest], dim=1)
            for part, rest in zip(x[..., 0].chunk(2), courses.chunk(2), strict=True)
        ]
        runs.setdefault(person, {}).setdefault(condition.task, []).append(torch.stack(parts))
    pairs = [_coefficients_in_halves(list(tasks.values())) for tasks in runs.values()]
    first, second = torch.stack(pairs).unbind(1)  # people V J
    group = torch.arange(first.shape[2]).expand(first.shape[1:])
    evoked.differences.copy_(between_people(first, second, group, len(evoked.differences)))


def _coefficients_in_halves(tasks: Sequence[Sequence[Tensor]]) -> Tensor:
    """Coefficients (2, V, J) of one person, from either half of its data, by ridge regression.

    Parameters
    ----------
    tasks : sequence of sequence of torch.Tensor
        For each task and each of its runs (2, V, V + J): moments beside
        products, in the first and the second half of the run.
    """
    found = []
    for which in (0, 1):
        total = torch.zeros_like(tasks[0][0][0])
        for runs in tasks:
            parts = [run.sum(0) for run in runs] if len(runs) > 1 else list(runs[0])
            total = total + torch.stack(list(in_two(parts)[which])).sum(0)
        moments, products = total[:, : len(total)], total[:, len(total) :]
        ridge = RIDGE * moments.diagonal().mean().clamp(min=1e-12)
        found.append(
            torch.linalg.solve(moments + ridge * torch.eye(len(total)).to(total), products)
        )
    return torch.stack(found)


class DiffusionLearner:
    """One optimisation step of the denoiser at a time.

    Parameters
    ----------
    fabric : lightning_fabric.Fabric
        Device, precision, processes.
    denoiser : Denoiser
        Trained in place; `averaged` holds the weights to use.
    training : DiffusionTraining
        How.
    windows : Windows
        What it learns from.
    noise : ModalNoise, ColouredNoise or WhiteNoise
        The diffusion's noise.
    seed : int
        Seed of everything that is drawn.
    """

    def __init__(
        self,
        fabric: Fabric,
        denoiser: Denoiser,
        training: DiffusionTraining,
        windows: Windows,
        noise: ModalNoise | ColouredNoise | WhiteNoise,
        seed: int,
    ) -> None:
        self.fabric, self.training, self.windows = fabric, training, windows
        self.noise, self.seed = noise, seed
        self.config = denoiser.config
        factor = self.config.evoked.learning_rate_factor
        evoked = [p for n, p in denoiser.named_parameters() if n.startswith("evoked.")]
        others = [p for n, p in denoiser.named_parameters() if not n.startswith("evoked.")]
        groups = [{"params": others, "factor": 1.0}]
        if evoked:
            groups.append({"params": evoked, "factor": factor})
        optimizer = torch.optim.AdamW(
            groups,
            training.learning_rate,
            training.betas,
            weight_decay=training.weight_decay,
            fused=True,  # one pass over the weights in place of a dozen
        )
        if training.compile:
            denoiser.backbone.compile()
        self.model, self.optimizer = fabric.setup(denoiser, optimizer)
        # after setup, which moves the denoiser to its device
        self.ema, self.mask = Ema(denoiser, training.ema_decay), denoiser.mask

    @property
    def averaged(self) -> Denoiser:
        """The denoiser with averaged weights."""
        module = self.ema.module
        assert isinstance(module, Denoiser)
        return module

    def step(self, step: int, progress: float) -> Mapping[str, float | Tensor]:
        """Make one optimisation step."""
        rate = self.training.learning_rate * cosine_warmup(progress, self.training.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        mine = list(shard(self.training.batch_size, self.fabric))
        size = self.training.micro_batch or len(mine)
        pieces = [mine[i : i + size] for i in range(0, len(mine), size)]
        loss = torch.zeros((), device=self.fabric.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, piece in enumerate(pieces, start=1):
            with self.fabric.no_backward_sync(self.model, enabled=number < len(pieces)):
                share = self._loss(step, piece) * (len(piece) / len(mine))
                self.fabric.backward(share)
            loss = loss + share.detach()
        norm = self.fabric.clip_gradients(
            self.model,
            self.optimizer,
            max_norm=self.training.gradient_clip,
            error_if_nonfinite=False,
        )
        self.optimizer.step()
        self.ema.update(step)
        shown = self.fabric.all_reduce(loss, reduce_op="mean")
        assert isinstance(shown, Tensor)
        assert norm is not None  # it is for clipping by value
        return {"loss": shown, "gradient_norm": norm, "learning_rate": rate}

    def _loss(self, step: int, indices: Sequence[int]) -> Tensor:
        """Loss of some of the global batch's windows."""
        latents, noise, theta, condition = self._batch(step, indices)
        try:
            return diffusion_loss(
                self.model, self.config.prediction, latents, noise, theta, condition, self.mask
            )
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise UsageError(
                f"torch.compile cannot make kernels here ({error.inner_exception}). Install a C++ "
                "compiler (for a GPU, Triton), or leave diffusion_training.compile at false."
            ) from None

    def _batch(self, step: int, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Condition]:
        """Draw windows of the global batch by their numbers: x_0, ε, θ, conditions."""
        drawn, noises, uniforms = [], [], []
        for index in indices:
            generator = step_generator(self.seed, step, index)
            latents, condition = self.windows.draw(generator)
            uniform = torch.rand(3, generator=generator)
            # angles spread evenly over the global batch: the same mean, less variance
            uniform[0] = (index + uniform[0]) / self.training.batch_size
            condition = replace(
                condition,
                kept=(uniform[1:2] >= self.training.condition_dropout).float(),
                anatomy_kept=(uniform[2:3] >= self.training.anatomy_dropout).float(),
            )
            drawn.append((latents, condition))
            person = int(torch.randint(2**62, (), generator=generator))  # of the noise, nobody
            noises.append(self.noise.window(self.config.n_frames, generator, person))
            uniforms.append(uniform[:1])
        device = self.fabric.device
        theta = training_angles(self.config.schedule, torch.cat(uniforms)).to(device)
        latents = torch.cat([d[0] for d in drawn]).to(device)
        noise = torch.stack(noises).to(device)
        return latents, noise, theta, collate([d[1] for d in drawn]).to(device)

    def state_dict(self) -> dict[str, Any]:
        """Weights, averaged weights and optimiser."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
