"""Build networks from embeddings, attention, convolutional and Transformer blocks.

Legend: B batch, D channels, X Y Z space, N tokens of space, L tokens of the
condition, E width of the condition.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Attention",
    "FilmBlock",
    "Places",
    "Positions",
    "TransformerBlock",
    "channels_last",
    "cosines",
    "fold",
    "linear",
    "modulate",
    "position_embedding",
    "sinusoid",
    "unfold",
    "zero_",
]

LARGEST_WEIGHTS = 2**23  # attention weights of a batch that are written out on a CPU


def channels_last(module: nn.Module) -> nn.Module:
    """Lay out weights in the order in which 3D convolution is fastest, in place."""
    return module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def linear(n_features: int, width: int) -> nn.Linear:
    """Make a linear layer, without torch's warning where there is no feature, as in rest."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(n_features, width)


def fold(inputs: int, width: int, size: int) -> nn.Conv3d:
    """Make a layer that folds blocks of size³ voxels into the channels of one."""
    return nn.Conv3d(inputs, width, size, stride=size)


def unfold(width: int, outputs: int, size: int, *, bias: bool = True) -> nn.ConvTranspose3d:
    """Make a layer that unfolds the channels of one voxel to size³ voxels, each with its own."""
    return nn.ConvTranspose3d(width, outputs, size, stride=size, bias=bias)


def zero_(
    module: nn.Linear | nn.Conv3d | nn.ConvTranspose3d,
) -> nn.Linear | nn.Conv3d | nn.ConvTranspose3d:
    """Zero a layer, so that what it adds starts at zero."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def sinusoid(values: Tensor, width: int, longest: float = 1e4) -> Tensor:
    """Embed real numbers (...) by sinusoids, (..., width), Vaswani et al. 2017 §3.5."""
    half = width // 2
    frequencies = torch.exp(-math.log(longest) * torch.arange(half, device=values.device) / half)
    angles = values.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def position_embedding(shape: tuple[int, int, int], width: int, device: torch.device) -> Tensor:
    """Embed the places of a lattice, (X·Y·Z, width), a third of the width per axis."""
    part = width // 6 * 2
    axes = torch.meshgrid(*[torch.arange(n, device=device) for n in shape], indexing="ij")
    embedded = torch.cat([sinusoid(axis.flatten(), part, 100.0) for axis in axes], dim=-1)
    return F.pad(embedded, (0, width - embedded.shape[-1]))


def cosines(shape: tuple[int, int, int], count: int, device: torch.device) -> Tensor:
    """Evaluate the smoothest functions of the cosine transform on a lattice of three dimensions.

    Returns
    -------
    torch.Tensor
        (count, X, Y, Z), of unit mean square, from slow to fast; zero from X·Y·Z on.
    """
    waves = np.indices(shape).reshape(3, -1)  # half waves along each axis
    order = np.argsort(((waves / np.array(shape)[:, None]) ** 2).sum(axis=0), kind="stable")
    basis = torch.ones(min(count, waves.shape[1]), *shape, device=device)
    for axis, n in enumerate(shape):
        k = torch.from_numpy(waves[axis, order[:count]]).to(device)
        centres = (torch.arange(n, device=device) + 0.5) * (math.pi / n)
        wave = torch.where(k > 0, 2**0.5, 1.0)[:, None] * (k[:, None] * centres).cos()
        basis = basis * wave.view(len(k), *(n if a == axis else 1 for a in range(3)))
    return F.pad(basis, (0, 0, 0, 0, 0, 0, 0, count - len(basis)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Compute x · (1 + scale) + shift, with (B, D) broadcast over tokens (B, N, D)."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


class LayerNorm(nn.LayerNorm):
    """Normalise the last axis in the precision of what comes in.

    Autocast would widen it to float32, and the next layer narrow it again: two passes more.
    Sums are float32 in any case.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; the shape stays."""
        weight, bias = (None if p is None else p.to(input.dtype) for p in (self.weight, self.bias))
        # autocast knows layer_norm, and not what it calls
        return torch.native_layer_norm(input, self.normalized_shape, weight, bias, self.eps)[0]


class Positions(nn.Module):
    """Add learned smooth functions of place to the features of one level.

    Their cost does not depend on the grid: a projection of `WAVES` cosines.

    Parameters
    ----------
    width : int
        Channels D of the level.
    shape : tuple of int
        (X, Y, Z) of the level.
    """

    WAVES = 64

    waves: Tensor

    def __init__(self, width: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        # computed here, since it would copy from the CPU in every step
        waves = cosines(shape, self.WAVES, torch.get_default_device())[None]
        self.register_buffer("waves", waves, persistent=False)
        self.project = nn.Conv3d(self.WAVES, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add them to (B, D, X, Y, Z)."""
        return x + self.project(self.waves)


class Places(nn.Module):
    """Add fixed sinusoids of place to the tokens of one level.

    Parameters
    ----------
    width : int
        Channels D of the level.
    shape : tuple of int
        (X, Y, Z) of the level.
    """

    embedding: Tensor

    def __init__(self, width: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        embedding = position_embedding(shape, width, torch.get_default_device())
        self.register_buffer("embedding", embedding, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add them to (B, X·Y·Z, D)."""
        return x + self.embedding.to(x)


class Attention(nn.Module):
    """Let tokens attend to themselves or to a context, with several heads.

    Parameters
    ----------
    width : int
        Channels D of the tokens; a multiple of `head_width`.
    context_width : int or None
        Channels E of the context; None for self-attention.
    head_width : int
        Channels of one head.
    """

    def __init__(self, width: int, context_width: int | None, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width or width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Let (B, N, D) attend to those of (B, L, E) that are `valid` (B, L)."""
        source = x if context is None else context
        q = rearrange(self.query(x), "b n (h d) -> b h n d", d=self.head_width)
        k, v = rearrange(
            self.key_value(source), "b l (two h d) -> two b h l d", two=2, d=self.head_width
        )
        y = _attend(q, k, v, None if valid is None else valid[:, None, None, :])
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Compute scaled dot-product attention of (B, H, N, d) to (B, H, L, d), masked (B, 1, 1, L).

    On a CPU the backward pass of the fused kernel is slower than that of two matrix products as
    long as the weights are few; where there is none, elsewhere, and beyond, it is used.
    """
    few = q.numel() // q.shape[3] * k.shape[2] <= LARGEST_WEIGHTS
    if q.device.type != "cpu" or not torch.is_grad_enabled() or not few:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):  # it would take the softmax to float32
        weights = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
        if mask is not None:
            weights = weights.masked_fill(~mask, -torch.inf)
        return weights.softmax(dim=3) @ v


class TransformerBlock(nn.Module):
    """Apply an AdaLN-Zero block (Peebles & Xie 2023) with cross-attention to condition tokens.

    Parameters
    ----------
    width, condition_width, head_width : int
        Channels D of the tokens, E of the condition, and of one head.
    token_width : int or None
        Channels of the condition's tokens; None for no attention to them.
    zero : bool
        Whether the block starts as the identity.
    """

    def __init__(
        self,
        width: int,
        condition_width: int,
        head_width: int,
        token_width: int | None,
        *,
        zero: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, None, head_width)
        self.norm2 = LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(condition_width, 6 * width)
        self.cross: Attention | None = None
        if token_width is not None:
            self.norm_cross = LayerNorm(width)
            self.cross = Attention(width, token_width, head_width)
        if zero:
            zero_(self.modulation)
            if self.cross is not None:
                zero_(self.cross.out)

    def forward(self, x: Tensor, pooled: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        """Map (B, N, D) under a pooled condition (B, E) and tokens (B, L, E'), valid (B, L)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(pooled).chunk(6, dim=-1)
        attended = self.attention(modulate(self.norm1(x), shift1, scale1))
        x = torch.addcmul(x, gate1[:, None], attended)
        if self.cross is not None:
            x = x + self.cross(self.norm_cross(x), tokens, valid)
        return torch.addcmul(x, gate2[:, None], self.mlp(modulate(self.norm2(x), shift2, scale2)))


class FilmBlock(nn.Module):
    """Apply a convolutional residual block, modulated by the condition (FiLM, Perez 2018).

    Parameters
    ----------
    width, condition_width : int
        Channels D, and E of the condition.
    groups : int
        Largest number of groups of a normalisation.
    zero : bool
        Whether the block starts as the identity.
    """

    def __init__(
        self, width: int, condition_width: int, groups: int = 32, *, zero: bool = True
    ) -> None:
        super().__init__()
        groups = math.gcd(groups, width)
        self.norm1 = nn.GroupNorm(groups, width)
        self.conv1 = nn.Conv3d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width)
        self.modulation = nn.Linear(condition_width, 2 * width)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1)
        if zero:
            zero_(self.modulation)
            zero_(self.conv2)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """Map (B, D, X, Y, Z) under a pooled condition (B, E)."""
        shift, scale = self.modulation(pooled)[:, :, None, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale))
        return x + self.conv2(h)
