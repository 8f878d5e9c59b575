"""MONAI's DiffusionModelUNet in the backbone's place: same latents, condition and learner.

The condition is the context of its cross-attention: the tokens of this
project's encoder, and the pooled condition as one token more, since the
network takes nothing but the time beside them.

Legend: B batch, T frames, C latent channels, X Y Z latent grid, L condition
tokens, E width of the condition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from fmrisynth.diffusion.backbone import ANATOMY_CHANNELS, BackboneConfig, ConditionEncoder
from fmrisynth.diffusion.conditioning import Condition, Vocabulary
from fmrisynth.errors import UsageError

__all__ = ["MonaiBackbone", "matched"]

GROUPS = 16  # of its GroupNorms; the finest level's width is a multiple
HEAD_WIDTH = 32  # the other levels' widths are multiples
BLOCKS = 2  # residual blocks of a level, the library's default
TIME_STEPS = 1000  # its time embedding expects 0 … 1000


class MonaiBackbone(nn.Module):
    """From T stacked noisy latent frames to T stacked outputs, as `Backbone` does.

    Attention is at every level but the finest, as in the library's own
    three-dimensional latent diffusion.

    Parameters
    ----------
    config : BackboneConfig
        `widths`, `blocks`, `condition_width`, `frame_tokens` and `anatomy` are
        used; the finest width must be a multiple of 16, the others of 32.
    vocabulary : Vocabulary
        Names of the condition.
    n_frames, channels : int
        T and C; a window enters as T·C channels.
    anatomy_patch : int
        Factor between the model grid and the latent grid.

    Raises
    ------
    UsageError
        MONAI is not installed, or a width is no such multiple.
    """

    def __init__(
        self,
        config: BackboneConfig,
        vocabulary: Vocabulary,
        n_frames: int,
        channels: int,
        anatomy_patch: int = 4,
    ) -> None:
        super().__init__()
        finest, *coarser = config.widths
        if finest % GROUPS or any(width % HEAD_WIDTH for width in coarser):
            raise UsageError(
                f"MONAI's network was given the widths {config.widths}; expected a multiple of "
                f"{GROUPS} first, and multiples of {HEAD_WIDTH} after it."
            )
        self.config, self.n_frames, self.patch = config, n_frames, anatomy_patch
        encoder = BackboneConfig(
            condition_width=config.condition_width, frame_tokens=config.frame_tokens
        )
        self.condition = ConditionEncoder(encoder, vocabulary, n_frames)
        anatomy = ANATOMY_CHANNELS * anatomy_patch**3 + 1 if config.anatomy else 0
        self.network: nn.Module = _network_class()(
            spatial_dims=3,
            in_channels=n_frames * channels + anatomy,
            out_channels=n_frames * channels,
            num_res_blocks=config.blocks,
            channels=config.widths,
            attention_levels=(False, *(True for _ in coarser)),
            norm_num_groups=GROUPS,
            num_head_channels=HEAD_WIDTH,
            with_conditioning=True,
            cross_attention_dim=config.condition_width,
            use_flash_attention=True,
        )

    def forward(self, x: Tensor, theta: Tensor, condition: Condition) -> Tensor:
        """X (B, T, C, X, Y, Z), theta (B,) to (B, T, C, X, Y, Z)."""
        pooled, tokens, valid = self.condition(theta, condition)
        # its cross-attention has no mask: what is not there becomes the learned "nothing"
        tokens = torch.where(valid[..., None], tokens, self.condition.null.to(tokens))
        context = torch.cat([pooled[:, None], tokens], dim=1)  # B L+1 E
        h = rearrange(x, "b t c x y z -> b (t c) x y z")
        if self.config.anatomy:
            h = torch.cat([h, self._folded_anatomy(condition).to(h)], dim=1)
        h = self.network(h, theta * (TIME_STEPS / (math.pi / 2)), context)
        return rearrange(h, "b (t c) x y z -> b t c x y z", t=self.n_frames)

    def _folded_anatomy(self, condition: Condition) -> Tensor:
        """Fold the anatomy (B, 2, X·p, Y·p, Z·p) to (B, 2·p³ + 1, X, Y, Z), zero where withheld."""
        p, given = self.patch, condition.anatomy_kept[:, None, None, None, None]
        folded = rearrange(
            condition.anatomy, "b c (x p) (y q) (z r) -> b (c p q r) x y z", p=p, q=p, r=p
        )
        return torch.cat([folded * given, given.expand(-1, 1, *folded.shape[2:])], dim=1)


def _network_class() -> Callable[..., nn.Module]:
    """Import MONAI's network, only when it is asked for."""
    try:
        from monai.networks.nets import DiffusionModelUNet
    except ImportError as error:
        raise UsageError(
            "The MONAI baseline needs MONAI 1.4 or later, which cannot be imported here "
            f"({error}). Install it with: pip install 'fmrisynth[monai]'"
        ) from None
    network: Callable[..., nn.Module] = DiffusionModelUNet
    return network


def matched(config: BackboneConfig, target: int, **shape: Any) -> BackboneConfig:
    """Widths that give MONAI's network a number of parameters, about in the ratio 1 : 2 : 3 ….

    Parameters
    ----------
    config : BackboneConfig
        The backbone to be matched; the number of levels, the condition and the
        anatomy stay as they are.
    target : int
        Parameters wanted.
    **shape
        Further arguments of `MonaiBackbone`: `vocabulary`, `n_frames`,
        `channels`, `anatomy_patch`.

    Returns
    -------
    BackboneConfig
        For `MonaiBackbone`.

    Raises
    ------
    UsageError
        MONAI is not installed, or its narrowest network is larger.
    """
    levels = len(config.widths)

    def sized(widths: list[int]) -> BackboneConfig:
        return replace(config, widths=tuple(widths), blocks=(BLOCKS,) * levels)

    def count(widths: list[int]) -> int:
        with torch.device("meta"):  # no memory and no random numbers
            network = MonaiBackbone(sized(widths), **shape)
        return sum(p.numel() for p in network.parameters())

    def scaled(base: int) -> list[int]:
        coarser = (math.ceil(base * (i + 1) / HEAD_WIDTH) * HEAD_WIDTH for i in range(1, levels))
        return [base, *coarser]

    # parameters grow with the square of the width, nearly
    guess = HEAD_WIDTH * math.sqrt(target / count(scaled(HEAD_WIDTH)))
    base = max(GROUPS, int(guess) // GROUPS * GROUPS)
    while base > GROUPS and count(scaled(base)) > target:
        base -= GROUPS
    widths = scaled(base)
    if (least := count(widths)) > target:
        raise UsageError(
            f"MONAI's network has at least {least:,} parameters on {levels} levels; "
            f"{target:,} were asked for. Ask for more, or for fewer levels."
        )
    # fill what is missing, with the finest and narrowest steps last
    for level in reversed(range(levels)):
        step = HEAD_WIDTH if level else GROUPS
        while count(wider := [w + step * (i == level) for i, w in enumerate(widths)]) <= target:
            widths = wider
    above = [widths[0] + GROUPS, *widths[1:]]
    return sized(min(widths, above, key=lambda w: abs(count(w) - target)))
