"""Put a plain Transformer on patches (DiT, Peebles & Xie 2023) in the backbone's place.

All blocks have one width and one resolution; there is no U-shape and no skip. Inputs, condition
and training are those of `fmrisynth.model.denoiser.backbone.Backbone`.

Legend: B batch, T frames, C latent channels, D width, X Y Z latent grid, N patches.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fmrisynth.config.diffusion import PATCH, BackboneConfig
from fmrisynth.model.denoiser.backbone import (
    ANATOMY_CHANNELS,
    ConditionEncoder,
    Encoded,
    fold_anatomy,
    make_frame_head,
)
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.layers import (
    Places,
    Positions,
    TransformerBlock,
    channels_last,
    fold,
    modulate,
    unfold,
    zero_,
)

__all__ = ["PatchTransformer"]


class PatchTransformer(nn.Module):
    """Map T stacked noisy latent frames to T stacked outputs, as `Backbone` does.

    Parameters
    ----------
    config : BackboneConfig
        One width, and the number of blocks.
    vocabulary : Vocabulary
        Names of the condition.
    n_frames, channels : int
        T and C; a window enters as T·C channels.
    grid : tuple of int
        (X, Y, Z), multiples of the patch.
    anatomy_patch : int
        Factor between the model grid and the latent grid.
    """

    def __init__(
        self,
        config: BackboneConfig,
        vocabulary: Vocabulary,
        n_frames: int,
        channels: int,
        grid: tuple[int, int, int],
        anatomy_patch: int = 4,
    ) -> None:
        super().__init__()
        (width,), (depth,) = config.widths, config.blocks
        self.n_frames, self.patch = n_frames, anatomy_patch
        condition_width = config.condition_width
        token_width = (config.token_width or condition_width) if config.cross_attention else None
        self.condition = ConditionEncoder(config, vocabulary, n_frames)
        values = n_frames * channels
        self.stem = fold(values, width, PATCH)
        self.anatomy: nn.Conv3d | None = None
        if config.anatomy:
            inputs = ANATOMY_CHANNELS * anatomy_patch**3 + 1
            self.anatomy = fold(inputs, width, PATCH)
        shape = (grid[0] // PATCH, grid[1] // PATCH, grid[2] // PATCH)
        self.positions = Positions(width, shape) if config.positions else None
        self.places = Places(width, shape)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width, condition_width, config.head_width, token_width, zero=config.zero_gates
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero_(nn.Linear(condition_width, 2 * width))
        self.head = zero_(unfold(width, values, PATCH))
        self.frame_head = make_frame_head(config, vocabulary, width, channels, grid)
        channels_last(self)

    def encode(self, condition: Condition) -> Encoded:
        """Encode the condition of B windows."""
        encoded = self.condition(condition)
        if self.anatomy is None:
            return encoded
        return encoded._replace(anatomy=self.anatomy(fold_anatomy(condition, self.patch)))

    def forward(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Map noisy latents (B, T, C, X, Y, Z) at angles (B,) to outputs of the same shape."""
        pooled, tokens, valid = self.condition.at(theta, encoded.pooled), *encoded[1:3]
        h = rearrange(x, "b t c x y z -> b (t c) x y z")
        h = self.stem(h.contiguous(memory_format=torch.channels_last_3d))
        if encoded.anatomy is not None:
            h = h + encoded.anatomy
        if self.positions is not None:
            h = self.positions(h)
        shape = (h.shape[2], h.shape[3], h.shape[4])
        h = rearrange(h, "b d x y z -> b (x y z) d")
        h = self.places(h)
        for block in self.blocks:
            h = block(h, pooled, tokens, valid)
        h = modulate(self.norm(h), *self.modulation(pooled).chunk(2, dim=-1))
        h = rearrange(h, "b (x y z) d -> b d x y z", x=shape[0], y=shape[1])
        out = rearrange(self.head(h), "b (t c) x y z -> b t c x y z", t=self.n_frames)
        if self.frame_head is not None:
            features = F.interpolate(h, scale_factor=float(PATCH))
            out = out + self.frame_head(encoded.frames, pooled, features)
        return out
