"""3D patch discriminator: one realness score for each overlapping block of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from fmrisynth.errors import UsageError

__all__ = ["AdversarialConfig", "PatchDiscriminator"]


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


class PatchDiscriminator(nn.Module):
    """Strided 4³ convolutions; GroupNorm, so that no sample depends on its batch."""

    def __init__(self, config: AdversarialConfig, in_channels: int = 1) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(config.layers)]
        layers: list[nn.Module] = [nn.Conv3d(in_channels, widths[0], 4, stride=2, padding=1)]
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.LeakyReLU(0.2),
                nn.Conv3d(inputs, outputs, 4, stride=2, padding=1, bias=False),
                nn.GroupNorm(8, outputs),
            ]
        layers += [nn.LeakyReLU(0.2), nn.Conv3d(widths[-1], 1, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of blocks, (B, 1, X, Y, Z) → (B, 1, X/2^layers, …)."""
        return self.layers(x.contiguous(memory_format=torch.channels_last_3d))
