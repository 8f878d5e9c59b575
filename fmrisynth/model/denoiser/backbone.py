"""Build the U-shaped backbone: convolutional early, Transformer late, skips by concatenation.

Legend: B batch, T frames, C latent channels, D width, X Y Z latent grid,
L condition tokens, E width of the condition.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fmrisynth.config.diffusion import BackboneConfig
from fmrisynth.model.denoiser.conditioning import FEATURES, Condition, Vocabulary
from fmrisynth.model.denoiser.frame_head import FrameHead
from fmrisynth.model.layers import (
    FilmBlock,
    Places,
    Positions,
    TransformerBlock,
    channels_last,
    fold,
    linear,
    sinusoid,
    unfold,
    zero_,
)

__all__ = ["Backbone", "ConditionEncoder", "Encoded", "fold_anatomy", "make_frame_head"]

ANATOMY_CHANNELS = 2  # the carrier's mean and noise level


class Encoded(NamedTuple):
    """Hold an encoded condition, which stays the same over the denoising steps.

    Attributes
    ----------
    pooled : Tensor of shape (B, E)
        Pooled condition, to which the angle is added.
    tokens : Tensor of shape (B, L, E')
        Condition tokens.
    valid : Tensor of shape (B, L), bool
        Tokens that count.
    anatomy : Tensor of shape (B, D, X, Y, Z) or None
        Encoded anatomy.
    frames : Tensor of shape (B, T, V·3) or None
        Features of the window's frames; zero where the condition is withheld.
    mode_sd : Tensor of shape (B, K) or None
        Standard deviation of the diffusion's noise along each of its modes.
    """

    pooled: Tensor
    tokens: Tensor
    valid: Tensor
    anatomy: Tensor | None = None
    frames: Tensor | None = None
    mode_sd: Tensor | None = None


class ConditionEncoder(nn.Module):
    """Encode condition and diffusion angle to a pooled vector and tokens."""

    def __init__(self, config: BackboneConfig, vocabulary: Vocabulary, n_frames: int) -> None:
        super().__init__()
        width = config.condition_width
        self.n_frames, self.width = n_frames, width

        def part(module: nn.Module) -> nn.Module:
            normalised = config.normalised_condition
            return nn.Sequential(module, nn.LayerNorm(width)) if normalised else module

        self.attributes = nn.ModuleList(
            part(nn.Embedding(n, width)) for n in vocabulary.attribute_sizes
        )
        self.t_r = part(nn.Linear(width, width))
        self.angle = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.pool = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.zeros(1, width))
        self.widen: nn.Sequential | None = None
        if config.attends and config.token_width is not None:
            wide = config.token_width
            self.widen = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, wide), nn.SiLU(), nn.Linear(wide, wide)
            )
        self.window: nn.Module | None = None
        self.frames: nn.Module | None = None
        if config.frame_tokens:
            features = FEATURES * len(vocabulary.trial_types)
            self.window = part(linear(n_frames * features, width))
            if config.attends:  # weights that nothing uses would stall data-parallel training
                self.frames = part(linear(features, width))
                self.index = nn.Parameter(torch.randn(n_frames, width) * 0.02)

    def forward(self, condition: Condition) -> Encoded:
        """Encode the condition of B windows, apart from the anatomy."""
        given = condition.condition_mask[:, None]
        parts = [e(condition.attributes[:, i]) for i, e in enumerate(self.attributes)]
        parts.append(self.t_r(sinusoid(condition.t_r * 10, self.width)))
        tokens = torch.stack(parts, dim=1)
        pooled = tokens.sum(dim=1)
        valid = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        history = condition.frames.shape[1] - self.n_frames
        window = condition.frames[:, history:]
        if self.frames is not None:
            frames = self.frames(condition.frames) + sinusoid(condition.times, self.width, 100.0)
            frames = frames + F.pad(self.index, (0, 0, history, 0))
            tokens = torch.cat([tokens, frames], dim=1)
            valid = torch.cat([valid, condition.valid], dim=1)
        if self.window is not None:
            pooled = pooled + self.window(window.flatten(1))
        # a withheld condition is one learned token in place of all
        tokens = torch.where(given[..., None] > 0, tokens, self.null)
        pooled = self.pool(torch.where(given > 0, pooled, self.null))
        if self.widen is not None:
            tokens = self.widen(tokens)
        return Encoded(pooled, tokens, valid, frames=window * given[..., None])

    def average_unlearned(self, learned: Tensor) -> None:
        """Give values of attributes that no run had the mean of those that runs had.

        Else a run of an unknown site would get the random vector that training started from.

        Parameters
        ----------
        learned : Tensor of shape (N, A), int64
            Attributes of the runs that were learned.
        """
        for values, part in zip(learned.T, self.attributes, strict=True):
            embedding = next(m for m in part.modules() if isinstance(m, nn.Embedding))
            had = torch.isin(torch.arange(len(embedding.weight)), values)
            with torch.no_grad():
                embedding.weight[~had] = embedding.weight[had].mean(0)

    def at(self, theta: Tensor, pooled: Tensor) -> Tensor:
        """Join the pooled condition (B, E) and the angles (B,)."""
        return F.silu(pooled + self.angle(sinusoid(theta * 1000, self.width)))


class Stage(nn.Module):
    """Apply the blocks of one level, all of one kind.

    Parameters
    ----------
    config : BackboneConfig
        Widths and blocks of all levels.
    level : int
        Which of them.
    grid : tuple of int
        (X, Y, Z) of the first level.
    """

    def __init__(self, config: BackboneConfig, level: int, grid: tuple[int, int, int]) -> None:
        super().__init__()
        shape = (grid[0] >> level, grid[1] >> level, grid[2] >> level)  # each level halves it
        width, condition_width = config.widths[level], config.condition_width
        token_width = (config.token_width or condition_width) if config.cross_attention else None
        self.convolutional = config.is_convolutional(level)
        self.positions = Positions(width, shape) if config.positions else None
        self.places = None if self.convolutional else Places(width, shape)
        depth = config.blocks[level] * (1 if self.convolutional else config.transformer_depth)
        self.blocks = nn.ModuleList(
            FilmBlock(width, condition_width, zero=config.zero_gates)
            if self.convolutional
            else TransformerBlock(
                width, condition_width, config.head_width, token_width, zero=config.zero_gates
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor, pooled: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        """Apply the blocks to (B, D, X, Y, Z); the shape stays."""
        if self.positions is not None:
            x = self.positions(x)
        if self.convolutional:
            for block in self.blocks:
                x = block(x, pooled)
            return x
        shape = x.shape[2:]
        h = rearrange(x, "b d x y z -> b (x y z) d")
        assert self.places is not None
        h = self.places(h)
        for block in self.blocks:
            h = block(h, pooled, tokens, valid)
        return rearrange(h, "b (x y z) d -> b d x y z", x=shape[0], y=shape[1])


class Backbone(nn.Module):
    """Map T stacked noisy latent frames to T stacked outputs.

    Parameters
    ----------
    config : BackboneConfig
        Architecture and widths.
    vocabulary : Vocabulary
        Names of the condition.
    n_frames, channels : int
        T and C; a window enters as T·C channels.
    grid : tuple of int
        (X, Y, Z), padded to what stem and levels divide.
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
        widths, levels, stem = config.widths, range(len(config.widths)), config.stem
        self.config, self.n_frames, self.patch = config, n_frames, anatomy_patch
        self.condition = ConditionEncoder(config, vocabulary, n_frames)
        values, lattice = n_frames * channels, (grid[0] // stem, grid[1] // stem, grid[2] // stem)
        self.stem = (
            fold(values, widths[0], stem)
            if stem > 1
            else nn.Conv3d(values, widths[0], 3, padding=1)
        )
        self.anatomy: nn.Conv3d | None = None
        if config.anatomy:
            # one channel more says that the anatomy is given
            self.anatomy = fold(ANATOMY_CHANNELS * anatomy_patch**3 + 1, widths[0], stem)
        self.down = nn.ModuleList(Stage(config, i, lattice) for i in levels)
        self.shrink = nn.ModuleList(fold(widths[i], widths[i + 1], 2) for i in levels[:-1])
        self.grow = nn.ModuleList(unfold(widths[i + 1], widths[i], 2) for i in levels[:-1])
        self.fuse = nn.ModuleList(nn.Conv3d(2 * widths[i], widths[i], 1) for i in levels)
        self.up = nn.ModuleList(Stage(config, i, lattice) for i in levels)
        self.norm = nn.GroupNorm(math.gcd(32, widths[0]), widths[0])
        self.head = zero_(
            unfold(widths[0], values, stem)
            if stem > 1
            else nn.Conv3d(widths[0], values, 3, padding=1)
        )
        self.frame_head = make_frame_head(config, vocabulary, widths[0], channels, grid, stem)

        channels_last(self)  # in which tokens are a view, too

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
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(h, pooled, tokens, valid)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        for level in reversed(range(len(self.up))):
            h = self.fuse[level](torch.cat([h, skips[level]], dim=1))
            h = self.up[level](h, pooled, tokens, valid)
            if level > 0:
                h = self.grow[level - 1](h)
        h = F.silu(self.norm(h))
        out = rearrange(self.head(h), "b (t c) x y z -> b t c x y z", t=self.n_frames)
        if self.frame_head is not None:
            out = out + self.frame_head(encoded.frames, pooled, h)
        return out


def make_frame_head(
    config: BackboneConfig,
    vocabulary: Vocabulary,
    width: int,
    channels: int,
    grid: tuple[int, int, int],
    stem: int = 1,
) -> FrameHead | None:
    """Build the frame-modulated head that a configuration asks for, if any.

    Its features are on the grid folded by `stem`.
    """
    if not config.modulates_frames:
        return None
    features = FEATURES * len(vocabulary.trial_types)
    components, condition_width = config.frame_components, config.condition_width
    return FrameHead(components, features, condition_width, width, channels, grid, stem)


def fold_anatomy(condition: Condition, patch: int) -> Tensor:
    """Fold the anatomy (B, 2, X·p, Y·p, Z·p) to (B, 2·p³ + 1, X, Y, Z).

    A withheld anatomy is zero; the last channel is 1 where it is given.
    """
    folded = rearrange(
        condition.anatomy,
        "b c (x p) (y q) (z r) -> b (c p q r) x y z",
        p=patch,
        q=patch,
        r=patch,
    )
    given = condition.anatomy_mask[:, None, None, None, None]
    return torch.cat([folded * given, given.expand(-1, 1, *folded.shape[2:])], dim=1)
