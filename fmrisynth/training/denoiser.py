"""Train the denoiser on windows of the latents.

Legend: B windows, T frames, C latent channels, X Y Z latent grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fmrisynth.config.diffusion import DiffusionTraining
from fmrisynth.errors import UsageError
from fmrisynth.model.denoiser.conditioning import Condition, collate
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.denoiser.schedule import training_angles
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.model import make_denoiser
from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.training.diffusion_loss import diffusion_loss
from fmrisynth.training.evoked import fit_individual_responses, start_evoked
from fmrisynth.training.loop import Ema, cosine_warmup, run_learner, shard, step_generator
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.prepare import TrainingData
from fmrisynth.training.windows import Windows

__all__ = ["DiffusionLearner", "fit_denoiser"]


def fit_denoiser(
    latents: Sequence[np.ndarray],
    latent_space: LatentSpace,
    noise: NoiseModel,
    data: TrainingData,
    plan: TrainingPlan,
    folder: Path,
    fabric: Fabric,
) -> Denoiser:
    """Train the denoiser, with its evoked-response pathway, on windows of the latents.

    Parameters
    ----------
    latents : sequence of ndarray of shape (N, C, X, Y, Z)
        Raw latents of each run.
    latent_space : LatentSpace
        Standardisation, on the CPU.
    noise : NoiseModel
        The diffusion's noise, on the CPU, where windows are drawn.
    data : TrainingData
        The runs that the latents are of.
    plan : TrainingPlan
        Settings, seed, budget.
    folder : pathlib.Path
        Training state and log; an interrupted training goes on from there.
    fabric : lightning_fabric.Fabric
        Device, precision, processes.

    Returns
    -------
    Denoiser
        With averaged weights, on the CPU.
    """
    config = plan.config
    torch.manual_seed(plan.seed)
    denoiser = make_denoiser(config, data.vocabulary, data.latent_mask)
    windows = Windows(
        latents,
        data.conditions,
        latent_space,
        config.denoiser.n_frames,
        config.diffusion_training.onset_share,
    )
    start_evoked(denoiser, windows)
    learner = DiffusionLearner(
        fabric, denoiser, config.diffusion_training, windows, noise, plan.seed
    )
    run_learner(learner, plan.diffusion_budget, fabric=fabric, directory=folder, title="Diffusion")
    denoiser = learner.averaged.cpu()
    fit_individual_responses(denoiser, windows, data.participants)
    return denoiser


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
    noise : NoiseModel
        The diffusion's noise, on the CPU.
    seed : int
        Seed of everything that is drawn.
    """

    def __init__(
        self,
        fabric: Fabric,
        denoiser: Denoiser,
        training: DiffusionTraining,
        windows: Windows,
        noise: NoiseModel,
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
        """The denoiser with averaged weights, which are saved and used."""
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
        """Compute the loss of some of the global batch's windows."""
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
                condition_mask=(uniform[1:2] >= self.training.condition_dropout).float(),
                anatomy_mask=(uniform[2:3] >= self.training.anatomy_dropout).float(),
            )
            drawn.append((latents, condition))
            # every window has a synthetic participant's noise, not that of its own participant
            participant_seed = int(torch.randint(2**62, (), generator=generator))
            noises.append(
                self.noise.sample_window(self.config.n_frames, generator, participant_seed)
            )
            uniforms.append(uniform[:1])
        device = self.fabric.device
        theta = training_angles(self.config.schedule, torch.cat(uniforms)).to(device)
        latents = torch.cat([d[0] for d in drawn]).to(device)
        noise = torch.stack(noises).to(device)
        return latents, noise, theta, collate([d[1] for d in drawn]).to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, averaged weights and the optimiser's state."""
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
