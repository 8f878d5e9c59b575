"""Encode volumes to latents and decode them: the 3D VQ-GAN of Kim et al.

Module names are those of VQModel in taming-transformers, so that its checkpoints load
(`fmrisynth.model.autoencoder.taming`).

Legend: B batch, C channels, X Y Z voxels, x y z latent voxels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.model.autoencoder.posterior import GaussianPosterior
from fmrisynth.model.autoencoder.quantizer import Quantized, VectorQuantizer

__all__ = ["VQGAN", "fold", "latent_mask", "unfold"]


def fold(x: Tensor, patch: int) -> Tensor:
    """Fold blocks of patch³ voxels into channels, (B, C, X, Y, Z) → (B, C·patch³, …).

    The result lies in channels-last order, which is the fast one for 3D convolution.
    """
    x = rearrange(x, "b c (x p) (y q) (z r) -> b x y z (c p q r)", p=patch, q=patch, r=patch)
    return x.movedim(-1, 1)


def unfold(x: Tensor, patch: int) -> Tensor:
    """Unfold channels into blocks, as `fold` inverted: (B, C·patch³, X, …) → (B, C, X·patch, …)."""
    return rearrange(x, "b (c p q r) x y z -> b c (x p) (y q) (z r)", p=patch, q=patch, r=patch)


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """Find the latent voxels that cover any voxel of a brain mask, (X, Y, Z) → (x, y, z) bool."""
    return F.max_pool3d(mask[None, None].float(), factor)[0, 0] > 0


def _conv(inputs: int, outputs: int, *, kernel: int = 3) -> nn.Conv3d:
    """Make a convolution that preserves the shape."""
    return nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2)


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    """Make a group normalisation with the published ε."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _encoded_values(config: VQGANConfig) -> int:
    """Count what the encoder says of a latent value: its mean, for ``kl`` its variance, too."""
    return 2 if config.quantizer == "kl" else 1


class ResnetBlock(nn.Module):
    """Compute x + conv(silu(norm(conv(silu(norm(x)))))), x convolved (1³) where widths differ."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs, groups)
        self.conv1 = _conv(inputs, outputs)
        self.norm2 = _norm(outputs, groups)
        self.conv2 = _conv(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = _conv(inputs, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block, (B, inputs, …) → (B, outputs, …) of the same spatial shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Downsample(nn.Module):
    """Halve the resolution by a strided convolution, padded at the far ends only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Halve the resolution, (B, C, X, Y, Z) → (B, C, X/2, Y/2, Z/2)."""
        return self.conv(F.pad(x, (0, 1) * 3))


class Upsample(nn.Module):
    """Double the resolution: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Double the resolution, (B, C, X, Y, Z) → (B, C, 2X, 2Y, 2Z)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Module):
    """Apply residual blocks at one resolution, then change to the next where there is one."""

    def __init__(
        self,
        widths: list[int],
        groups: int,
        *,
        downsample: Downsample | None = None,
        upsample: Upsample | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(i, o, groups) for i, o in pairwise(widths))
        self.downsample, self.upsample = downsample, upsample

    def forward(self, x: Tensor) -> Tensor:
        """Apply the stage, (B, C, X, Y, Z) → (B, C', X', Y', Z')."""
        for block in self.block:
            x = block(x)
        for change in (self.downsample, self.upsample):
            if change is not None:
                x = change(x)
        return x


class Middle(nn.Module):
    """Apply residual blocks at the coarsest resolution, named as in taming-transformers."""

    def __init__(self, width: int, groups: int, blocks: int) -> None:
        super().__init__()
        for index in range(blocks):
            self.add_module(f"block_{index + 1}", ResnetBlock(width, width, groups))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the blocks; the shape stays."""
        for block in self.children():
            x = block(x)
        return x


class Encoder(nn.Module):
    """Map a folded volume to latents before `quant_conv`."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths, groups = config.widths, config.norm_groups
        self.conv_in = _conv(config.in_channels * config.patch**3, widths[0])
        self.down = nn.ModuleList()
        previous = widths[0]
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            change = None if last else Downsample(width)
            self.down.append(Stage([previous] + [width] * config.blocks, groups, downsample=change))
            previous = width
        self.mid = Middle(previous, groups, config.middle_blocks)
        self.norm_out = _norm(previous, groups)
        self.conv_out = _conv(previous, _encoded_values(config) * config.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, (B, C·patch³, X/patch, …) → (B, C, x, y, z)."""
        h = self.conv_in(x)
        for stage in self.down:
            h = stage(h)
        h = self.mid(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """Map latents after `post_quant_conv` to a folded volume, as the encoder mirrored."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths, groups = config.widths, config.norm_groups
        self.conv_in = _conv(config.latent_channels, widths[-1])
        self.mid = Middle(widths[-1], groups, config.middle_blocks)
        self.up = nn.ModuleList()
        previous = widths[-1]
        for level, width in reversed(list(enumerate(widths))):
            change = Upsample(width) if level else None
            stage = Stage([previous] + [width] * (config.blocks + 1), groups, upsample=change)
            self.up.insert(0, stage)  # up.0 is the finest, as down.0 is
            previous = width
        self.norm_out = _norm(previous, groups)
        self.conv_out = _conv(previous, config.in_channels * config.patch**3)

    def forward(self, z: Tensor) -> Tensor:
        """Decode, (B, C, x, y, z) → (B, C·patch³, X/patch, …)."""
        h = self.mid(self.conv_in(z))
        for stage in reversed(self.up):  # coarsest first
            h = stage(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class VQGAN(nn.Module):
    """Encode single volumes, quantise their latents, and decode them."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        channels, block = config.latent_channels, config.in_channels * config.factor**3
        if config.convolutional:
            self.encoder = Encoder(config)
            moments = _encoded_values(config) * channels
            self.quant_conv = _conv(moments, moments, kernel=1)
        if config.quantizer == "kl":
            self.posterior = GaussianPosterior(config.kl_weight)
        if config.has_codebook:
            self.quantize = VectorQuantizer(
                config.codebook_size,
                channels,
                commitment_weight=config.commitment_weight,
                learn_by_gradient=config.quantizer == "gradient",
            )
        if config.convolutional:
            self.post_quant_conv = _conv(channels, channels, kernel=1)
            self.decoder = Decoder(config)
        if config.linear_path:
            kernel = 3 if config.convolutional else 1
            shape: dict[str, Any] = {"padding": kernel // 2, "bias": False}
            self.linear_encoder = nn.Conv3d(block, channels, kernel, **shape)
            self.linear_decoder = nn.Conv3d(channels, block, kernel, **shape)

    @torch.no_grad()
    def set_linear_path(self, components: Tensor, scale: Tensor) -> None:
        """Start the linear path as a projection on principal components, of unit variance.

        The convolutional path starts at zero, so that the whole autoencoder
        starts as the best linear one that works block by block.

        Parameters
        ----------
        components : Tensor of shape (C, factor³)
            Orthonormal principal components of the blocks of a volume.
        scale : Tensor of shape (C,)
            Standard deviation of the data along each.
        """
        for conv, weight in (
            (self.linear_encoder, components / scale[:, None]),
            (self.linear_decoder, (components * scale[:, None]).T),
        ):
            conv.weight.zero_()
            middle = conv.kernel_size[0] // 2
            conv.weight[:, :, middle, middle, middle] = weight
        if not self.config.convolutional:
            return
        for conv in (self.encoder.conv_out, self.decoder.conv_out):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(cast(Tensor, conv.bias))
        nn.init.zeros_(cast(Tensor, self.quant_conv.bias))

    def encode(self, x: Tensor) -> Tensor:
        """Encode volumes to continuous latents, before quantisation.

        Parameters
        ----------
        x : Tensor of shape (B, 1, X, Y, Z)
            Volumes; X, Y and Z multiples of `VQGANConfig.factor`.

        Returns
        -------
        z : Tensor of shape (B, C, x, y, z)

        Raises
        ------
        ValueError
            An axis is no multiple of the factor.
        """
        factor = self.config.factor
        if any(n % factor for n in x.shape[2:]):
            raise ValueError(
                f"Volume {tuple(x.shape[2:])} is no multiple of {factor} on each axis."
            )
        if not self.config.convolutional:
            linear: Tensor = self.linear_encoder(fold(x, factor))
            return linear
        return self._moments(x)[0]

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode volumes to the mean of their latents and, for ``kl``, the logarithmic variance."""
        z: Tensor = self.quant_conv(self.encoder(fold(x, self.config.patch)))
        log_variance: Tensor | None = None
        if self.config.quantizer == "kl":
            z, log_variance = z.chunk(2, dim=1)
        if self.config.linear_path:
            z = z + self.linear_encoder(fold(x, self.config.factor))
        return z, log_variance

    def codes(self, z: Tensor) -> Tensor:
        """Replace latents by their codes, where the decoder expects codes alone."""
        if not self.config.decode_codes:
            return z
        quantised: Tensor = self.quantize(z, None).z_q
        return quantised

    def decode(self, z: Tensor) -> Tensor:
        """Decode continuous or quantised latents, (B, C, x, y, z) → (B, 1, X, Y, Z)."""
        z = z.contiguous(memory_format=torch.channels_last_3d)
        if not self.config.convolutional:
            return unfold(self.linear_decoder(z), self.config.factor)
        x = unfold(self.decoder(self.post_quant_conv(z)), self.config.patch)
        if self.config.linear_path:
            x = x + unfold(self.linear_decoder(z), self.config.factor)
        return x

    def forward(
        self, x: Tensor, quantised: Tensor | None = None, inside: Tensor | None = None
    ) -> tuple[Tensor, Quantized]:
        """Encode, quantise and decode.

        Parameters
        ----------
        x : Tensor of shape (B, 1, X, Y, Z)
            Volumes.
        quantised : Tensor of shape (B,), bool, optional
            Samples whose latents are quantised before decoding; the others stay
            continuous. All of them by default.
        inside : Tensor of shape (x, y, z), bool, optional
            Latent voxels that count in the quantiser's loss and statistics.

        Returns
        -------
        x_hat : Tensor of shape (B, 1, X, Y, Z)
        code : Quantized
        """
        if self.config.quantizer == "none":
            z = self.encode(x)
            return self.decode(z), Quantized.without_codebook(z)
        if self.config.quantizer == "kl":
            code = self.posterior(*self._moments(x), inside)
        else:
            code = self.quantize(self.encode(x), inside)
        z_in = code.z_q
        if quantised is not None:
            z_in = torch.where(quantised[:, None, None, None, None], code.z_q, code.z)
        return self.decode(z_in), code
