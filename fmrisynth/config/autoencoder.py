"""Define the settings of the autoencoder and of its training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fmrisynth.errors import UsageError

__all__ = ["AdversarialConfig", "AutoencoderTraining", "VQGANConfig"]


@dataclass(frozen=True)
class VQGANConfig:
    """Describe the architecture of the autoencoder; the defaults are the network of Kim et al.

    Attributes
    ----------
    in_channels : int
        Number of channels of a volume.
    latent_channels : int
        Number of channels of the latents (both ``z_channels`` and ``embed_dim`` of Kim et al.).
    codebook_size : int
        Number of code vectors.
    base_width : int
        Number of channels of the finest stage.
    multipliers : tuple of int
        Width of each stage as a multiple of `base_width`; between two stages
        the resolution halves.
    blocks : int
        Number of residual blocks per encoder stage; a decoder stage has one more.
    middle_blocks : int
        Number of residual blocks at the coarsest stage, between encoder and latents: 1 in
        the code of Kim et al., 2 in taming-transformers.
    norm_groups : int
        Number of groups of each GroupNorm; must divide the width of every stage.
    patch : int
        Edge (voxels) of the cubes that are folded into channels before the first
        convolution. 2 keeps every convolution off the full resolution and
        replaces one stage.
    linear_path : bool
        Whether a linear encoder and decoder are added to the convolutional ones. They start
        as the principal components of the data (`VQGAN.set_linear_path`), and
        the network learns the remainder. False in the network of Kim et al.
    convolutional : bool
        Whether there are convolutional encoder and decoder at all. False leaves the linear
        path, fitted to the data in one pass: principal components of blocks of voxels.
    quantizer : {"ema", "gradient", "kl", "none"}
        How the codebook learns: ``ema`` by a moving average of the latents assigned to each
        code, ``gradient`` by gradient descent; ``none`` leaves the codebook out. ``kl`` has a
        Gaussian in its place, as variational autoencoders have.
    commitment_weight : float
        Weight of the loss term that keeps latents near their codes.
    kl_weight : float
        Weight of the divergence of a volume's latents from a standard Gaussian, for ``kl``.
    decode_codes : bool
        Whether latents are replaced by their codes before they are decoded, as a decoder
        that was trained on codes alone needs it.
    """

    in_channels: int = 1
    latent_channels: int = 4
    codebook_size: int = 8192
    base_width: int = 64
    multipliers: tuple[int, ...] = (1, 1, 2)
    blocks: int = 1
    middle_blocks: int = 1
    norm_groups: int = 32
    patch: int = 1
    linear_path: bool = False
    convolutional: bool = True
    quantizer: Literal["ema", "gradient", "kl", "none"] = "ema"
    commitment_weight: float = 0.25
    kl_weight: float = 1e-6
    decode_codes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))  # JSON gives a list
        if bad := [w for w in self.widths if w % self.norm_groups]:
            raise UsageError(
                f"norm_groups={self.norm_groups} does not divide the stage width {bad[0]} "
                f"(base_width × multipliers = {self.widths}); choose a divisor."
            )
        if self.quantizer not in ("ema", "gradient", "kl", "none"):
            raise UsageError(
                f"quantizer={self.quantizer!r}; expected 'ema', 'gradient', 'kl' or 'none'."
            )
        if not self.convolutional and not (self.linear_path and self.quantizer == "none"):
            raise UsageError(
                f"convolutional=false with linear_path={self.linear_path} and "
                f"quantizer={self.quantizer!r}; expected linear_path=true and quantizer=none: "
                "principal components are all there is."
            )
        if self.decode_codes and not self.has_codebook:
            raise UsageError(
                f"decode_codes=true with quantizer={self.quantizer}; expected a codebook."
            )

    @property
    def has_codebook(self) -> bool:
        """Whether latents are quantised."""
        return self.quantizer in ("ema", "gradient")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, finest first."""
        return tuple(self.base_width * m for m in self.multipliers)

    @property
    def factor(self) -> int:
        """Voxels per latent voxel, along each axis."""
        return self.patch * 2 ** (len(self.multipliers) - 1)


@dataclass(frozen=True)
class AdversarialConfig:
    """Configure the adversarial loss term and its discriminator.

    Attributes
    ----------
    weight : float
        Weight of the adversarial term relative to the reconstruction term, as
        gradient norms at the decoder's last layer; 0 leaves the discriminator out.
    start : float
        Share of the training after which the discriminator starts to learn, in [0, 1].
    warmup : float
        Share of the training over which the term then rises to its full weight, in [0, 1].
    maximum : float
        Upper limit of the adaptive weight of the term.
    width : int
        Number of channels of the discriminator's first layer.
    layers : int
        Number of strided layers of the discriminator; each doubles its width and the size
        of the patches that it judges.
    learning_rate : float
        Learning rate of the discriminator, relative to the autoencoder's.
    """

    weight: float = 0.1
    start: float = 0.3
    warmup: float = 0.2
    maximum: float = 10.0
    width: int = 32
    layers: int = 2
    learning_rate: float = 0.5

    def __post_init__(self) -> None:
        if self.width % 4 or self.layers < 1:
            raise UsageError(
                f"Discriminator of width {self.width} with {self.layers} layers; expected a "
                "width that 4 divides and at least one layer."
            )

    def factor(self, progress: float) -> float:
        """Return the weight of the term at a share `progress` of the training."""
        if progress < self.start:
            return 0.0
        return self.weight * min(1.0, (progress - self.start) / max(self.warmup, 1e-6))

    def active(self, progress: float) -> bool:
        """Return whether the discriminator learns at a share `progress` of the training."""
        return self.weight > 0 and progress >= self.start


@dataclass(frozen=True)
class AutoencoderTraining:
    """Configure the training of the autoencoder.

    Attributes
    ----------
    batch_size : int
        Number of volumes per training step, over all processes.
    micro_batch : int or None
        Number of volumes that a process holds at once; gradients are accumulated over its
        share of the batch. None processes the whole share at once.
    learning_rate : float
        Peak learning rate of AdamW, reached by a linear warm-up and followed by half a cosine.
    warmup : float
        Share of the training over which the learning rate rises, in [0, 1].
    weight_decay : float
        Weight decay of AdamW.
    betas : tuple of float
        Decay rates β₁ and β₂ of AdamW's moment estimates.
    gradient_clip : float
        Largest norm of the gradient, for autoencoder and discriminator each.
    ema_decay_max : float
        Decay of the exponential moving average of the weights, after its own warm-up.
    reconstruction : {"l1", "l2"}
        Reconstruction loss: absolute (``l1``) or squared error (``l2``). The squared error keeps
        small signals in noisy data, because its optimum is the mean.
    quantise_share : float
        Share of the latents that are quantised (``kl``: drawn from their Gaussian) before
        decoding, in [0, 1]; the others stay continuous, as the diffusion model generates them.
    codebook_decay : float
        Decay γ of the codebook's moving average.
    init : str or None
        Checkpoint to start from, in the layout of taming-transformers' VQModel
        (``.safetensors``, or a ``.ckpt`` or ``.pt`` that holds tensors alone); the settings of
        `autoencoder` must fit it. None starts from random weights.
    adversarial : AdversarialConfig
        Adversarial loss term.
    """

    batch_size: int = 16
    micro_batch: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_clip: float = 1.0
    ema_decay_max: float = 0.99
    reconstruction: Literal["l1", "l2"] = "l2"
    quantise_share: float = 0.25
    codebook_decay: float = 0.99
    init: str | None = None
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
