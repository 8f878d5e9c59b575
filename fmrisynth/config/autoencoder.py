"""Settings of the autoencoder and its training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fmrisynth.errors import UsageError

__all__ = ["AdversarialConfig", "AutoencoderTraining", "VQGANConfig"]


@dataclass(frozen=True)
class VQGANConfig:
    """Shape of the autoencoder; the defaults are the published Kim et al. network.

    Attributes
    ----------
    in_channels : int
        Channels of a volume.
    latent_channels : int
        Channels of the latents (``z_channels`` and ``embed_dim`` alike).
    codebook_size : int
        Number of code vectors.
    base_width : int
        Channels of the finest stage.
    multipliers : tuple of int
        Width of each stage as a multiple of `base_width`; between two stages
        the resolution halves.
    blocks : int
        Residual blocks per encoder stage; the decoder has one more.
    middle_blocks : int
        Residual blocks at the coarsest stage, between encoder and latents: 1 in
        the code that Kim et al. released, 2 in taming-transformers.
    norm_groups : int
        Groups of each GroupNorm; must divide every width.
    patch : int
        Edge (voxels) of the blocks folded into channels before the first
        convolution. 2 keeps every convolution off the full resolution, and
        replaces one stage.
    linear_path : bool
        Add a linear encoder and decoder beside the convolutional ones. They start
        as the principal components of the data (`VQGAN.set_linear_path`), and
        the network learns what these leave. False is the published network.
    quantizer : {"ema", "gradient", "none"}
        How the codebook learns: as a moving average of the latents that each
        code wins, by gradient descent, or there is none.
    commitment_weight : float
        Weight of the term that keeps latents near their codes.
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
    quantizer: Literal["ema", "gradient", "none"] = "ema"
    commitment_weight: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))  # JSON gives a list
        if bad := [w for w in self.widths if w % self.norm_groups]:
            raise UsageError(
                f"norm_groups={self.norm_groups} does not divide the stage width {bad[0]} "
                f"(base_width × multipliers = {self.widths}); choose a divisor."
            )
        if self.quantizer not in ("ema", "gradient", "none"):
            raise UsageError(f"quantizer={self.quantizer!r}; expected 'ema', 'gradient' or 'none'.")

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
    """The adversarial term and the discriminator behind it.

    Attributes
    ----------
    weight : float
        Weight of the adversarial term relative to the reconstruction term, as
        gradient norms at the decoder's last layer; 0 leaves the discriminator out.
    start : float
        Share of the training after which the discriminator starts to learn.
    warmup : float
        Share of the training over which the term then rises to its weight.
    maximum : float
        Upper limit of the adaptive weight.
    width : int
        Channels of the first layer.
    layers : int
        Strided layers; each doubles the width and the size of the blocks.
    learning_rate : float
        Learning rate, relative to the autoencoder's.
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
        """Weight of the term at a share `progress` of the training."""
        if progress < self.start:
            return 0.0
        return self.weight * min(1.0, (progress - self.start) / max(self.warmup, 1e-6))

    def active(self, progress: float) -> bool:
        """Whether the discriminator learns at a share `progress` of the training."""
        return self.weight > 0 and progress >= self.start


@dataclass(frozen=True)
class AutoencoderTraining:
    """How the autoencoder is trained.

    Attributes
    ----------
    batch_size : int
        Volumes per step, over all processes.
    micro_batch : int or None
        Volumes that a process takes at once; gradients are added up over the
        pieces of its share. None takes the whole share.
    learning_rate : float
        Peak of a warm-up and half a cosine.
    warmup : float
        Share of the training spent warming up.
    weight_decay : float
        Of AdamW.
    betas : tuple of float
        Of AdamW.
    gradient_clip : float
        Largest norm of a gradient, for autoencoder and discriminator each.
    ema_decay_max : float
        Decay of the averaged weights, once warmed up.
    reconstruction : {"l1", "l2"}
        Error that the decoder minimises. The squared error keeps small signals
        in noisy data, because it aims at the mean.
    quantise_share : float
        Share of the samples that the decoder sees quantised, in [0, 1]; the
        others it sees as the diffusion model will give them, continuous.
    codebook_decay : float
        γ of the codebook's moving average.
    adversarial : AdversarialConfig
        The adversarial term.
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
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
