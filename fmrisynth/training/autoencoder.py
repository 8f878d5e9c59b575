"""Train the autoencoder, a VQ-GAN: updates of the network, the discriminator, the codebook.

Legend: B batch, C channels, X Y Z voxels, x y z latent voxels, N latent vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from einops import rearrange
from lightning_fabric import Fabric
from torch import Tensor

from fmrisynth.config.autoencoder import AutoencoderTraining, VQGANConfig
from fmrisynth.model.autoencoder.discriminator import PatchDiscriminator
from fmrisynth.model.autoencoder.quantizer import CodebookAverage, Quantized
from fmrisynth.model.autoencoder.taming import load_taming_state_dict
from fmrisynth.model.autoencoder.vqgan import VQGAN, fold, latent_mask
from fmrisynth.model.layers import channels_last
from fmrisynth.preprocess.cache import Frames
from fmrisynth.training.autoencoder_losses import hinge_discriminator
from fmrisynth.training.autoencoder_objective import AutoencoderObjective
from fmrisynth.training.loop import Ema, cosine_warmup, run_learner, shard, step_generator
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.prepare import TrainingData

__all__ = ["AutoencoderLearner", "Volumes", "fit_autoencoder", "principal_blocks"]

LINEAR_VOLUMES = 256  # that principal components of blocks are computed from
STARTING_VOLUMES = 32  # from which the codebook and the linear path are started
DRAWS = 2**30  # stream of random numbers, apart from those of the volumes
CANDIDATES = 64  # latent vectors of each volume that dead codes may be put on


class Volumes(Protocol):
    """Give residual volumes on the model grid, continued beyond the brain's edge."""

    def __len__(self) -> int:
        """Count the volumes."""

    def frames(self, indices: np.ndarray) -> np.ndarray:
        """Read volumes by number, (B,) → (B, X, Y, Z) float32."""


def fit_autoencoder(
    data: TrainingData,
    plan: TrainingPlan,
    initial_state: Mapping[str, Tensor] | None,
    folder: Path,
    fabric: Fabric,
) -> VQGAN:
    """Train the autoencoder on the training runs' volumes.

    Parameters
    ----------
    data : TrainingData
        The runs.
    plan : TrainingPlan
        Settings, seed, budget.
    initial_state : mapping of str to Tensor or None
        Weights to start from; None for random ones.
    folder : pathlib.Path
        Training state and log; an interrupted training goes on from there.
    fabric : lightning_fabric.Fabric
        Device, precision, processes.

    Returns
    -------
    VQGAN
        With averaged weights, on the device.
    """
    factor = plan.config.autoencoder.factor
    volumes = Frames([*data.runs], data.scale, data.grid.mask, factor)
    if not plan.config.autoencoder.convolutional:
        return _fit_linear(plan.config.autoencoder, volumes, data)
    learner = AutoencoderLearner(
        fabric,
        plan.config.autoencoder,
        plan.config.autoencoder_training,
        volumes,
        data.grid.mask,
        seed=plan.seed,
        initial_state=initial_state,
    )
    run_learner(
        learner, plan.autoencoder_budget, fabric=fabric, directory=folder, title="Autoencoder"
    )
    return learner.averaged


def _fit_linear(config: VQGANConfig, volumes: Volumes, data: TrainingData) -> VQGAN:
    """Fit the autoencoder without convolutions: the principal components of blocks."""
    net = VQGAN(config)
    count = min(len(volumes), LINEAR_VOLUMES)
    spread = np.linspace(0, len(volumes) - 1, count).astype(int)
    x = torch.from_numpy(volumes.frames(spread))[:, None]
    net.set_linear_path(
        *principal_blocks(x, data.latent_mask, config.factor, config.latent_channels)
    )
    channels_last(net)
    return net.eval().requires_grad_(False)


def principal_blocks(x: Tensor, inside: Tensor, factor: int, count: int) -> tuple[Tensor, Tensor]:
    """Compute the principal components of the blocks that become one latent voxel.

    Parameters
    ----------
    x : Tensor of shape (B, 1, X, Y, Z)
        Volumes.
    inside : Tensor of shape (x, y, z), bool
        Latent voxels that count.
    factor : int
        Edge of a block (voxels).
    count : int
        Number of components.

    Returns
    -------
    components : Tensor of shape (count, factor³)
        Orthonormal, in order of variance.
    scale : Tensor of shape (count,)
        Standard deviation along each.
    """
    rows = fold(x, factor).movedim(1, -1)[:, inside].flatten(0, 1).double()  # N factor³
    variances, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))  # ascending
    components = vectors.T.flip(0)[:count]
    # an eigenvector's sign is arbitrary: make the largest entry positive
    peak = components.gather(1, components.abs().argmax(1, keepdim=True))
    scale = variances.flip(0)[:count].clamp_min(1e-8).sqrt()
    return (components * peak.sign()).float(), scale.float()


class AutoencoderLearner:
    """Train the autoencoder, one optimisation step at a time (`fmrisynth.training.loop.Learner`).

    Parameters
    ----------
    fabric : lightning_fabric.Fabric
        Device, precision and processes.
    config : VQGANConfig
        Architecture of the network.
    training : AutoencoderTraining
        Settings of the training.
    volumes : Volumes
        Training volumes.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels, in which the error counts.
    seed : int
        Seed of all that is random, together with the number of the step.
    initial_state : mapping of str to Tensor, optional
        Weights to start from (`fmrisynth.model.autoencoder.taming`).
    """

    finished = False  # its budget alone ends it

    def __init__(
        self,
        fabric: Fabric,
        config: VQGANConfig,
        training: AutoencoderTraining,
        volumes: Volumes,
        mask: np.ndarray,
        *,
        seed: int,
        initial_state: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.fabric, self.config, self.training = fabric, config, training
        self.volumes, self.seed = volumes, seed
        self.mask = torch.from_numpy(np.ascontiguousarray(mask)).to(fabric.device)
        self.inside = latent_mask(self.mask, config.factor)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = VQGAN(config)
            self.critic = PatchDiscriminator(training.adversarial, config.in_channels)
        for module in (self.net, self.critic):
            channels_last(module).to(fabric.device)
        self._start(initial_state)
        self.optimizer = torch.optim.AdamW(
            [p for p in self.net.parameters() if p.requires_grad],
            lr=training.learning_rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
        )
        self.critic_optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=training.learning_rate, betas=(0.5, 0.9), weight_decay=0.0
        )
        objective = AutoencoderObjective(self.net, training, self.mask, self._mean)
        self._objective, self._optimizer = fabric.setup(objective, self.optimizer)
        self._critic, self._critic_optimizer = fabric.setup(self.critic, self.critic_optimizer)
        self.average = Ema(self.net, training.ema_decay_max)

    @property
    def averaged(self) -> VQGAN:
        """The autoencoder with averaged weights, which are saved and used."""
        module = self.average.module
        assert isinstance(module, VQGAN)
        return module

    @torch.no_grad()
    def _start(self, initial_state: Mapping[str, Tensor] | None) -> None:
        """Start from given weights, or initialise linear path and codebook by the data."""
        count = min(len(self.volumes), STARTING_VOLUMES)
        spread = np.linspace(0, len(self.volumes) - 1, count).astype(int)
        x = torch.from_numpy(self.volumes.frames(spread))[:, None].to(self.fabric.device)
        self.codebook: CodebookAverage | None = None
        if initial_state is not None:
            load_taming_state_dict(self.net, initial_state)
        elif self.config.linear_path:
            channels, factor = self.config.latent_channels, self.config.factor
            self.net.set_linear_path(*principal_blocks(x, self.inside, factor, channels))
        if not self.config.has_codebook:
            return
        codebook = CodebookAverage(self.net.quantize, decay=self.training.codebook_decay)
        if initial_state is None:
            with self.fabric.autocast():
                z = torch.cat([self.net.encode(piece).float() for piece in x.split(4)])
            codebook.start(self._rows(z), step_generator(self.seed, 0, 1))
        if self.config.quantizer == "ema":
            self.codebook = codebook

    def _rows(self, z: Tensor) -> Tensor:
        """Collect the latent vectors inside of the brain, (B, C, x, y, z) → (N, C)."""
        return rearrange(z[:, :, self.inside], "b c n -> (b n) c").contiguous()

    def _mean(self, tensor: Tensor) -> Tensor:
        """Average over processes."""
        return cast(Tensor, self.fabric.all_reduce(tensor, reduce_op="mean"))

    def step(self, step: int, progress: float) -> dict[str, Tensor]:
        """Make one optimisation step; return the named losses.

        Parameters
        ----------
        step : int
            Number of the step, which decides all that is random in it.
        progress : float
            Share of the training that is over, in [0, 1].
        """
        rate = self.training.learning_rate * cosine_warmup(progress, self.training.warmup)
        _set_rate(self.optimizer, rate)
        _set_rate(self.critic_optimizer, rate * self.training.adversarial.learning_rate)
        x, quantised = self._batch(step)
        if self.config.quantizer == "kl":  # draws latents, on the device: repeatably
            torch.manual_seed(step_generator(self.seed, step, DRAWS).initial_seed())

        terms, x_hat, code = self._autoencoder_step(x, quantised, progress)
        if self.training.adversarial.weight > 0:
            terms["discriminator"] = self._discriminator_step(x, x_hat, progress)
        if self.codebook is not None:
            terms["revived"] = self._codebook_step(code, step)
        self.average.update(step)

        names = sorted(terms)
        stacked = torch.stack([terms[name].detach().float() for name in names])
        return dict(zip(names, self._mean(stacked), strict=True))

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw this process's share of the volumes of a step, and which of them to quantise."""
        size = self.training.batch_size
        generator = step_generator(self.seed, step)
        indices = torch.randint(len(self.volumes), (size,), generator=generator)
        quantised = torch.rand(size, generator=generator) < self.training.quantise_share
        mine = list(shard(size, self.fabric))
        x = torch.from_numpy(self.volumes.frames(indices[mine].numpy()))[:, None]
        return x.to(self.fabric.device), quantised[mine].to(self.fabric.device)

    def _autoencoder_step(
        self, x: Tensor, quantised: Tensor, progress: float
    ) -> tuple[dict[str, Tensor], Tensor, Quantized]:
        """Update encoder, decoder and, if it learns by gradient, the codebook."""
        size = self.training.micro_batch or len(x)
        pieces = list(zip(x.split(size), quantised.split(size), strict=True))
        outputs = []
        for number, (volumes, share) in enumerate(pieces, start=1):
            with self.fabric.no_backward_sync(self._objective, enabled=number < len(pieces)):
                terms, x_hat, code = self._objective(volumes, share, self.critic, progress)
                weight = len(volumes) / len(x)
                self.fabric.backward(terms["loss"] * weight)
            detached = {name: term.detach() * weight for name, term in terms.items()}
            outputs.append((detached, x_hat.detach(), Quantized(*(t.detach() for t in code))))
        norm = self.fabric.clip_gradients(
            self._objective, self._optimizer, max_norm=self.training.gradient_clip
        )
        assert norm is not None  # it is for clipping by value
        self._optimizer.step()
        self._optimizer.zero_grad()

        all_terms, all_x_hat, codes = zip(*outputs, strict=True)
        means = {name: torch.stack([t[name] for t in all_terms]).sum() for name in all_terms[0]}
        return means | {"gradient": norm}, torch.cat(all_x_hat), _join(codes)

    def _discriminator_step(self, x: Tensor, x_hat: Tensor, progress: float) -> Tensor:
        """Update the discriminator on true volumes and on those just decoded."""
        if not self.training.adversarial.active(progress):
            return x.new_zeros(())
        size = self.training.micro_batch or len(x)
        pieces = list(zip(x.split(size), x_hat.split(size), strict=True))
        total = x.new_zeros(())
        for number, (real, fake) in enumerate(pieces, start=1):
            with self.fabric.no_backward_sync(self._critic, enabled=number < len(pieces)):
                scores = self._critic(torch.cat([real, fake]) * self.mask)
                loss = hinge_discriminator(*scores.chunk(2)) * (len(real) / len(x))
                self.fabric.backward(loss)
            total = total + loss.detach()
        self.fabric.clip_gradients(
            self._critic, self._critic_optimizer, max_norm=self.training.gradient_clip
        )
        self._critic_optimizer.step()
        self._critic_optimizer.zero_grad()
        return total

    def _codebook_step(self, code: Quantized, step: int) -> Tensor:
        """Update the codes by the latents of this step, and revive the dead ones."""
        assert self.codebook is not None
        rows = self._rows(code.z)
        mine = shard(self.training.batch_size, self.fabric)
        per_volume = len(rows) // len(mine)
        drawn = [
            torch.randint(
                per_volume, (CANDIDATES,), generator=step_generator(self.seed, step, 2 + index)
            )
            + position * per_volume
            for position, index in enumerate(mine)
        ]
        # processes hold neighbouring parts of the batch: gathered, they lie in its order
        candidates = cast(Tensor, self.fabric.all_gather(rows[torch.cat(drawn).to(rows.device)]))
        revived = self.codebook.update(
            rows,
            code.indices[:, self.inside].flatten(),
            candidates.reshape(-1, rows.shape[1]),
            self.fabric,
        )
        return rows.new_tensor(float(revived))

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs to repeat an unbroken one."""
        state: dict[str, Any] = {
            "net": self.net.state_dict(),
            "critic": self.critic.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
        }
        if self.codebook is not None:
            state["codebook"] = self.codebook.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.net.load_state_dict(state["net"])
        self.critic.load_state_dict(state["critic"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        if self.codebook is not None:
            self.codebook.load_state_dict(state["codebook"])


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _join(codes: tuple[Quantized, ...]) -> Quantized:
    """Join the codes of the pieces of a batch; the scalars are logged piece by piece."""
    z, z_q, indices = (torch.cat([code[i] for code in codes]) for i in range(3))
    return codes[0]._replace(z=z, z_q=z_q, indices=indices)
