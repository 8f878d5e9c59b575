"""Put MONAI's DiffusionModelUNet in the backbone's place, with the same inputs and training.

The condition is the context of its cross-attention: the tokens of this
project's encoder, and the pooled condition as one token more, since the
network takes nothing but the time beside them.

Legend: B batch, T frames, C latent channels, X Y Z latent grid, L condition
tokens, E width of the condition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from fmrisynth.config.diffusion import BackboneConfig
from fmrisynth.errors import UsageError
from fmrisynth.model.denoiser.backbone import (
    ANATOMY_CHANNELS,
    ConditionEncoder,
    Encoded,
    fold_anatomy,
    make_frame_head,
)
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.layers import Positions, cosines

__all__ = ["MonaiBackbone", "matched"]

GROUPS = 16  # of its GroupNorms; all widths are multiples
HEAD_WIDTHS = (64, 48, 32, 16)  # of its attention: the first that divides a level's width
BLOCKS = 2  # residual blocks of a level, the library's default
TOLERANCE = 0.01  # of the number of parameters
FREEDOM = 0.35  # how far a width may lie from its share, to match a number of parameters
TIME_STEPS = 1000  # its time embedding expects 0 … 1000


class MonaiBackbone(nn.Module):
    """Map T stacked noisy latent frames to T stacked outputs, as `Backbone` does.

    Attention is at every level but the finest, as in the library's own
    three-dimensional latent diffusion.

    Parameters
    ----------
    config : BackboneConfig
        `widths`, `blocks`, `condition_width`, `frame_tokens`, `anatomy`, `positions`,
        `normalised_condition` and `frame_components` are used; the widths must be
        multiples of 16.
    vocabulary : Vocabulary
        Names of the condition.
    n_frames, channels : int
        T and C; a window enters as T·C channels.
    grid : tuple of int
        (X, Y, Z), padded to what the levels divide.
    anatomy_patch : int
        Factor between the model grid and the latent grid.

    Raises
    ------
    UsageError
        MONAI is not installed, or a width is no multiple of 16.
    """

    waves: Tensor

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
        if any(width % GROUPS for width in config.widths):
            raise UsageError(
                f"MONAI's network was given the widths {config.widths}; expected multiples of "
                f"{GROUPS}."
            )
        self.config, self.n_frames, self.patch = config, n_frames, anatomy_patch
        encoder = BackboneConfig(
            condition_width=config.condition_width,
            frame_tokens=config.frame_tokens,
            normalised_condition=config.normalised_condition,
        )
        self.condition = ConditionEncoder(encoder, vocabulary, n_frames)
        anatomy = ANATOMY_CHANNELS * anatomy_patch**3 + 1 if config.anatomy else 0
        waves = cosines(grid, Positions.WAVES, torch.get_default_device())[None]
        self.register_buffer("waves", waves if config.positions else None, persistent=False)
        positions = Positions.WAVES if config.positions else 0
        network = _network_class()(
            spatial_dims=3,
            in_channels=n_frames * channels + anatomy + positions,
            out_channels=n_frames * channels,
            num_res_blocks=config.blocks,
            channels=config.widths,
            attention_levels=[level > 0 for level in range(len(config.widths))],
            norm_num_groups=GROUPS,
            num_head_channels=[
                next(head for head in HEAD_WIDTHS if width % head == 0) for width in config.widths
            ],
            with_conditioning=True,
            cross_attention_dim=config.condition_width,
            use_flash_attention=True,
        )
        # the head is this wrapper's, so that features come out of the network
        head = network.out
        assert isinstance(head, nn.Sequential)
        self.norm, self.head, network.out = head[:-1], head[-1], nn.Identity()
        self.network: nn.Module = network
        self.frame_head = make_frame_head(config, vocabulary, config.widths[0], channels, grid)

    def encode(self, condition: Condition) -> Encoded:
        """Encode the condition of B windows."""
        encoded = self.condition(condition)
        # its cross-attention has no mask: what is not there becomes the learned "nothing"
        null = self.condition.null.to(encoded.tokens)
        tokens = torch.where(encoded.valid[..., None], encoded.tokens, null)
        anatomy = fold_anatomy(condition, self.patch) if self.config.anatomy else None
        return encoded._replace(tokens=tokens, anatomy=anatomy)

    def forward(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Map noisy latents (B, T, C, X, Y, Z) at angles (B,) to outputs of the same shape."""
        pooled = self.condition.at(theta, encoded.pooled)
        context = torch.cat([pooled[:, None], encoded.tokens], dim=1)  # B L+1 E
        h = rearrange(x, "b t c x y z -> b (t c) x y z")
        if encoded.anatomy is not None:
            h = torch.cat([h, encoded.anatomy.to(h)], dim=1)
        if self.config.positions:
            h = torch.cat([h, self.waves.to(h).expand(len(h), -1, -1, -1, -1)], dim=1)
        h = self.network(h, theta * (TIME_STEPS / (math.pi / 2)), context)
        features = self.norm(h)
        out = rearrange(self.head(features), "b (t c) x y z -> b t c x y z", t=self.n_frames)
        if self.frame_head is not None:
            out = out + self.frame_head(encoded.frames, pooled, features)
        return out


def _network_class() -> Callable[..., nn.Module]:
    """Import MONAI's network on its first use."""
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
    """Find widths in about the ratio 1 : 2 : 3 … that give MONAI's network a number of parameters.

    Of those within 1 % of it the nearest to the ratio are taken: how many operations the
    network takes depends on how its parameters are spread over the levels.

    Parameters
    ----------
    config : BackboneConfig
        The backbone to be matched; the number of levels, the condition and the
        anatomy stay as they are.
    target : int
        Parameters wanted.
    **shape
        Further arguments of `MonaiBackbone`: `vocabulary`, `n_frames`,
        `channels`, `grid`, `anatomy_patch`.

    Returns
    -------
    BackboneConfig
        For `MonaiBackbone`; within 1 % of the target from some 30 million
        parameters on, coarser below, where a step of a width weighs more.

    Raises
    ------
    UsageError
        MONAI is not installed, or its narrowest network is larger.
    """
    levels = len(config.widths) + config.stem - 1  # where a stem of 2 folds, it has a level more
    config = replace(
        config, widths=(GROUPS,) * levels, blocks=(BLOCKS,) * levels, stem=1, architecture="monai"
    )
    ratio = np.arange(1, levels + 1)
    formula = _parameter_formula(config, shape)
    bases = np.geomspace(GROUPS, 4096, 2000)
    base = bases[np.abs(_quadratic(bases[:, None] * ratio) @ formula - target).argmin()]
    steps = np.arange(GROUPS, (1 + FREEDOM) * base * levels + GROUPS, GROUPS)
    choices = [
        steps[np.abs(steps / (base * share) - 1) < max(FREEDOM, GROUPS / base)] for share in ratio
    ]
    widths = np.stack(np.meshgrid(*choices, indexing="ij"), axis=-1).reshape(-1, levels)
    widths = widths[(np.diff(widths) > 0).all(axis=1)]
    error = np.abs(_quadratic(widths) @ formula / target - 1)
    if not error.size or error.min() > 0.1:
        raise UsageError(
            f"MONAI's network on {levels} levels cannot be as small as {target:,} parameters; "
            "ask for more, or for fewer levels."
        )
    farness = np.square(np.log(widths / (base * ratio))).sum(axis=1)
    farness[error > max(TOLERANCE, error.min())] = np.inf
    return replace(config, widths=tuple(int(width) for width in widths[farness.argmin()]))


def _quadratic(widths: np.ndarray) -> np.ndarray:
    """Compute the terms of a quadratic in the widths, (N, levels) to (N, terms)."""
    first, second = np.triu_indices(widths.shape[1])
    products = widths[:, first] * widths[:, second]
    return np.concatenate([np.ones((len(widths), 1)), widths, products], axis=1)


def _parameter_formula(config: BackboneConfig, shape: dict[str, Any]) -> np.ndarray:
    """Solve for the coefficients of `_quadratic` that give the number of parameters, exactly.

    It is a quadratic in the widths, so that as many small networks determine
    it as it has terms.
    """
    levels = len(config.widths)
    lattice = [k for k in itertools.product(range(3), repeat=levels) if sum(k) <= 2]
    # no two levels alike: between those the network has no projection
    widths = GROUPS * (1 + np.array(lattice) + 4 * np.arange(levels))
    counts = []
    for row in widths:
        with torch.device("meta"):  # no memory and no random numbers
            network = MonaiBackbone(replace(config, widths=tuple(map(int, row))), **shape)
        counts.append(sum(p.numel() for p in network.parameters()))
    coefficients: np.ndarray = np.linalg.solve(_quadratic(widths), np.array(counts))
    return coefficients
