"""Score how real each overlapping block of a volume is: a 3D patch discriminator."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from fmrisynth.config.autoencoder import AdversarialConfig

__all__ = ["PatchDiscriminator"]


class PatchDiscriminator(nn.Module):
    """Score blocks by strided 4³ convolutions; GroupNorm keeps samples of a batch independent."""

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
        """Score the blocks of volumes, (B, 1, X, Y, Z) → (B, 1, X/2^layers, …)."""
        return self.layers(x.contiguous(memory_format=torch.channels_last_3d))
