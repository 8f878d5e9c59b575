"""Train the denoiser on windows of the latents.

Legend: B windows, T frames, C latent channels, X Y Z latent grid.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fmrisynth.config.diffusion import DenoiserConfig, DiffusionTraining
from fmrisynth.config.model import ModelConfig
from fmrisynth.errors import UsageError
from fmrisynth.model.denoiser.conditioning import Condition, collate
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.denoiser.schedule import training_angles
from fmrisynth.model.model import make_denoiser
from fmrisynth.training.batch_noise import BatchNoise
from fmrisynth.training.diffusion_loss import Regression, diffusion_loss
from fmrisynth.training.loop import Ema, cosine_warmup, run_learner, shard, step_generator
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.prepare import TrainingData
from fmrisynth.training.skill import ValidationWindows, support, validation_gain
from fmrisynth.training.window_noise import WindowNoise
from fmrisynth.training.windows import LatentRuns, Windows

__all__ = ["DiffusionLearner", "fit_denoiser"]

CHECKS = 6  # of the validation windows in a training
LEAST_GAIN = 1e-4  # of the loss, over the best before: less is no progress
# Of the velocity's power, in a band: beside a response model, a network that adds less is not worth
# the time of asking it. No figure of a report would show it.
WORTH_ASKING = 1e-3
REGRESSION_RATE = 2.0  # of learning, in units of the diffusion's: its targets have no noise
REGRESSION_BAND = 1.3, 1.5  # angles near pure noise, where regression is exact for any noise

log = logging.getLogger(__name__)


def fit_denoiser(
    runs: LatentRuns,
    noise: WindowNoise,
    data: TrainingData,
    plan: TrainingPlan,
    folder: Path,
    fabric: Fabric,
    watched: Sequence[str],
) -> Denoiser:
    """Train the denoiser on windows of the latents, and set its gate.

    Parameters
    ----------
    runs : LatentRuns
        Latents of the training runs, with what the denoiser need not learn.
    noise : WindowNoise
        The diffusion's noise, run by run, of a model that the validation participants had no part
        in: noise that they have shaped fits them, and not others.
    data : TrainingData
        Vocabulary and mask.
    plan : TrainingPlan
        Settings, seed, budget.
    folder : pathlib.Path
        Training state and log; an interrupted training goes on from there.
    fabric : lightning_fabric.Fabric
        Device, precision, processes.
    watched : sequence of str
        The validation participants, whom the denoiser does not learn from.

    Returns
    -------
    Denoiser
        With averaged weights, those that did best on the validation participants, on the CPU.
    """
    config = plan.config
    torch.manual_seed(plan.seed)
    denoiser = make_denoiser(config, data.vocabulary, data.latent_mask)
    denoiser.attach(noise.group.mode_maps)
    learners = sorted(set(data.participants) - set(watched))
    length = config.denoiser.n_frames
    validation = None
    if watched:
        seen = runs.of(watched).without_responses()
        validation = ValidationWindows(seen, noise.of(watched), length, plan.seed)
    windows = Windows(runs.of(learners), length, config.diffusion_training.onset_share)
    learner = DiffusionLearner(
        fabric,
        denoiser,
        config.diffusion_training,
        windows,
        noise.of(learners),
        plan.seed,
        regress=config.response.kind == "none",
        validation=validation,
    )
    run_learner(learner, plan.diffusion_budget, fabric=fabric, directory=folder, title="Diffusion")
    if learner.finished:
        log.info("diffusion: ended early, since validation participants gain nothing from it")
    denoiser = learner.best.cpu()
    if config.diffusion_training.gate and gated(config.denoiser):
        _set_gate(denoiser, validation, config)
    return denoiser


def _set_gate(
    denoiser: Denoiser, validation: ValidationWindows | None, config: ModelConfig
) -> None:
    """Open the gate as far as participants support who were not learned from."""
    if validation is not None:
        alone = config.response.kind == "none"  # then caution would make every effect smaller
        gates = support(denoiser, validation, 0.0 if alone else WORTH_ASKING, cautious=not alone)
        for name, found in gates.items():
            getattr(denoiser, name).copy_(found)
            log.info("%s by angle: %s", name, np.round(found.double().numpy(), 2).tolist())
    elif config.response.kind != "none":  # else the response is the network's
        denoiser.gate.zero_()
        denoiser.mode_gate.zero_()
        log.warning(
            "the network is left out: no training participant is there to tell whether it helps "
            "(--set diffusion_training.gate=false lets it in)"
        )


def gated(config: DenoiserConfig) -> bool:
    """Whether zero is what statistics alone say of the velocity, so that it can be scaled."""
    return config.noise == "coloured"


class DiffusionLearner:
    """Train the denoiser, one optimisation step at a time (`fmrisynth.training.loop.Learner`).

    Parameters
    ----------
    fabric : lightning_fabric.Fabric
        Device, precision, processes.
    denoiser : Denoiser
        Trained in place; `averaged` holds the weights to use.
    training : DiffusionTraining
        Settings of the training.
    windows : Windows
        Windows of the training runs.
    noise : WindowNoise
        The diffusion's noise, run by run.
    seed : int
        Seed of everything that is drawn.
    regress : bool
        Whether the training begins with regression on the participants' fitted responses.
    validation : ValidationWindows or None
        Windows that choose among the weights along the training; without them the last count.
    """

    def __init__(
        self,
        fabric: Fabric,
        denoiser: Denoiser,
        training: DiffusionTraining,
        windows: Windows,
        noise: WindowNoise,
        seed: int,
        *,
        regress: bool = False,
        validation: ValidationWindows | None = None,
    ) -> None:
        self.fabric, self.training, self.windows = fabric, training, windows
        self.seed, self.validation, self.config = seed, validation, denoiser.config
        self.noise = BatchNoise(windows, noise, self.config.n_frames, seed)
        self.regression_share = training.regression_share if regress else 0.0
        optimizer = torch.optim.AdamW(
            denoiser.parameters(),
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
        self._best: dict[str, Tensor] = {}
        # the network starts at zero, where it neither gains nor loses
        self._best_gain, self._gain, self._checked = -math.inf, 0.0, 0
        self._progress_from, self._in_vain = 0.0, 0  # the gain to surpass, and checks that did not

    @property
    def finished(self) -> bool:
        """Whether the validation participants have gained nothing for as long as is waited."""
        return 0 < self.training.patience <= self._in_vain

    @property
    def averaged(self) -> Denoiser:
        """The denoiser with averaged weights, which are saved and used."""
        module = self.ema.module
        assert isinstance(module, Denoiser)
        return module

    @property
    def best(self) -> Denoiser:
        """The denoiser with those averaged weights that did best on the validation windows."""
        denoiser = self.averaged
        self._check(denoiser)
        if self._best:
            denoiser.load_state_dict(self._best)
        return denoiser

    def _check(self, denoiser: Denoiser) -> float:
        """Measure the gain on the validation windows, and keep the weights if it is the best."""
        if self.validation is None:
            return math.nan
        with self.fabric.autocast():
            gain = validation_gain(denoiser, self.validation)
        if gain > self._best_gain:
            self._best_gain = gain
            self._best = {k: v.detach().cpu().clone() for k, v in denoiser.state_dict().items()}
        return gain

    def step(self, step: int, progress: float) -> Mapping[str, float | Tensor]:
        """Make one optimisation step."""
        rate = self.training.learning_rate * cosine_warmup(progress, self.training.warmup)
        rate *= 1 + (REGRESSION_RATE - 1) * self._regressing(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        mine = list(shard(self.training.batch_size, self.fabric))
        size = self.training.micro_batch or len(mine)
        pieces = [mine[i : i + size] for i in range(0, len(mine), size)]
        loss = torch.zeros((), device=self.fabric.device)
        self.optimizer.zero_grad(set_to_none=True)
        for number, piece in enumerate(pieces, start=1):
            last = number == len(pieces)
            with self.fabric.no_backward_sync(self.model, enabled=not last):
                batch = self._batch(step, piece, self._regressing(progress))
                self.noise.prepare(step + last, pieces[0] if last else pieces[number])
                share = self._loss(*batch) * (len(piece) / len(mine))
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
        losses: dict[str, float | Tensor] = {
            "loss": shown,
            "gradient_norm": norm,
            "learning_rate": rate,
        }
        if self.validation is None:
            return losses
        if progress >= self.regression_share and int(progress * CHECKS) > self._checked:
            self._checked = int(progress * CHECKS)
            self._gain = self._check(self.averaged)
            self._in_vain += 1
            if self._gain > self._progress_from + LEAST_GAIN:
                self._progress_from, self._in_vain = self._gain, 0
        return losses | {"validation_gain": self._gain}

    def _regressing(self, progress: float) -> float:
        """Share of the targets that are regression's: all at first, then less and less."""
        if progress >= self.regression_share:
            return 0.0
        return min(1.0, 2 * (1 - progress / self.regression_share))

    def _loss(
        self,
        latents: Tensor,
        noise: Tensor,
        theta: Tensor,
        condition: Condition,
        regression: Regression | None,
    ) -> Tensor:
        """Compute the loss of some of the global batch's windows."""
        try:
            return diffusion_loss(
                self.model,
                self.config.prediction,
                latents,
                noise,
                theta,
                condition,
                self.mask,
                regression,
            )
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise UsageError(
                f"torch.compile cannot make kernels here ({error.inner_exception}). Install a C++ "
                "compiler (for a GPU, Triton), or leave diffusion_training.compile at false."
            ) from None

    def _batch(
        self, step: int, indices: Sequence[int], regressing: float
    ) -> tuple[Tensor, Tensor, Tensor, Condition, Regression | None]:
        """Draw windows of the global batch by their numbers: x_0, ε, θ, conditions, regression."""
        drawn, uniforms, means = [], [], []
        runs, length = self.windows.runs, self.config.n_frames
        chosen, noises = self.noise.draw(step, indices)
        for index in indices:
            generator = step_generator(self.seed, step, index)
            run, start = self.windows.choose(generator, chosen[index])
            uniform = torch.rand(4, generator=generator)
            # angles spread evenly over the global batch: the same mean, less variance
            uniform[0] = (index + uniform[0]) / self.training.batch_size
            condition = replace(
                runs.conditions[run].window(start, length),
                condition_mask=(uniform[1:2] >= self.training.condition_dropout).float(),
                anatomy_mask=(uniform[2:3] >= self.training.anatomy_dropout).float(),
                mode_sd=self.noise.mode_sd(run),
            )
            drawn.append((runs.noise(run, start, length), condition))
            if regressing:
                means.append(runs.response(run, start, length) * condition.condition_mask)
            uniforms.append(uniform)
        device, uniform = self.fabric.device, torch.stack(uniforms)
        theta = training_angles(self.config.schedule, uniform[:, 0])
        regression = None
        if regressing:
            theta, share = self._regression_angles(theta, uniform, regressing)
            regression = Regression(torch.stack(means).to(device), share.to(device))
        latents = torch.stack([d[0] for d in drawn]).to(device)
        noise = torch.stack([noises[index] for index in indices]).to(device)
        condition = collate([d[1] for d in drawn]).to(device)
        return latents, noise, theta.to(device), condition, regression

    def _regression_angles(
        self, theta: Tensor, uniform: Tensor, regressing: float
    ) -> tuple[Tensor, Tensor]:
        """Choose the angles of a batch, and the share of regression in each window's target.

        With noise of the data's covariance and v the target is exact at every angle; else it is
        near π/2 alone, where a share of the windows then goes.
        """
        if self.config.prediction == "v" and self.config.noise == "coloured":
            return theta, torch.full_like(theta, regressing)
        band = REGRESSION_BAND[0] + uniform[:, 0] * (REGRESSION_BAND[1] - REGRESSION_BAND[0])
        chosen = uniform[:, 3] < regressing
        return torch.where(chosen, band, theta), chosen.float()

    def state_dict(self) -> dict[str, Any]:
        """Return weights, averaged weights and the optimiser's state."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self._best,
            "best_gain": self._best_gain,
            "gain": self._gain,
            "checked": self._checked,
            "progress_from": self._progress_from,
            "in_vain": self._in_vain,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._best, self._best_gain = state["best"], float(state["best_gain"])
        self._gain, self._checked = float(state["gain"]), int(state["checked"])
        self._progress_from, self._in_vain = float(state["progress_from"]), int(state["in_vain"])
