"""Predict the velocity of noisy latent windows: backbone, masks and gate in one object.

x_θ = cos θ · x_0 + sin θ · ε,  v = cos θ · ε − sin θ · x_0.

Latents come without evoked response and noise level (`fmrisynth.model.response`,
`fmrisynth.model.noise_level`). If what is left is Gaussian with the covariance of ε, the exact
velocity is 0: the backbone need only learn what those statistics leave out, and its gate, one
factor for each band of angles, says how much of what it learned holds for new participants.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmrisynth.config.diffusion import BackboneConfig, DenoiserConfig
from fmrisynth.model.denoiser.backbone import Backbone, Encoded
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.denoiser.monai_unet import MonaiBackbone, matched
from fmrisynth.model.denoiser.patch_transformer import PatchTransformer

__all__ = ["GATE_BANDS", "Denoiser"]

GATE_BANDS = 8  # of equal width, from 0 to π/2
EPSILON_ERROR = 0.05  # error of an ε-prediction, which sets how far x_0 can be told from it


class Denoiser(nn.Module):
    """Predict the velocity of noisy latent windows.

    Parameters
    ----------
    config : DenoiserConfig
        Settings.
    vocabulary : Vocabulary
        Names of the conditions.
    channels : int
        Latent channels C.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    patch : int
        Factor between model grid and latent grid.
    """

    mask: Tensor
    gate: Tensor

    def __init__(
        self,
        config: DenoiserConfig,
        vocabulary: Vocabulary,
        channels: int,
        mask: Tensor,
        patch: int = 4,
    ) -> None:
        super().__init__()
        self.config = config
        shape = (mask.shape[0], mask.shape[1], mask.shape[2])
        multiple = config.backbone.grid_multiple  # pad the grid where it does not divide
        self.padding = tuple(-n % multiple for n in shape)
        self.backbone = _make_backbone(
            config.backbone,
            vocabulary=vocabulary,
            n_frames=config.n_frames,
            channels=channels,
            grid=tuple(n + p for n, p in zip(shape, self.padding, strict=True)),
            anatomy_patch=patch,
        )
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("gate", torch.ones(GATE_BANDS))

    def forward(self, x: Tensor, theta: Tensor, condition: Condition) -> Tensor:
        """Predict v or ε, whichever the loss compares.

        Parameters
        ----------
        x : Tensor of shape (B, T, C, X, Y, Z)
            Noisy latents.
        theta : Tensor of shape (B,)
            Angles.
        condition : Condition
            Of the B windows.

        Returns
        -------
        Tensor of shape (B, T, C, X, Y, Z), float32
            Zero outside the brain.
        """
        return self.predict(x, theta, self.encode(condition))

    def encode(self, condition: Condition) -> Encoded:
        """Encode the condition for the backbone, the same at every angle."""
        return self.backbone.encode(self._padded(condition))

    def predict(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Compute the backbone's part of the output of `forward`."""
        px, py, pz = self.padding
        h = F.pad(x, (0, pz, 0, py, 0, px)) if any(self.padding) else x
        out = self.backbone(h, theta, encoded).float()
        return out[..., : x.shape[-3], : x.shape[-2], : x.shape[-1]] * self.mask

    def as_velocity(self, x: Tensor, theta: Tensor, out: Tensor) -> Tensor:
        """Turn the network's output into the velocity, scaled by the gate.

        From ε follows x_0 = (x − sin θ · ε) / cos θ, with an error that grows without bound
        towards pure noise, where ε says nothing of x_0. It is shrunk by the share of it that
        is signal if the network is off by `EPSILON_ERROR`.
        """
        if self.config.prediction == "epsilon":
            cos, sin = _per_item(theta.cos()), _per_item(theta.sin())
            x_0 = (x - sin * out) * cos / (cos**2 + EPSILON_ERROR**2)
            out = cos * out - sin * x_0
        return out * _per_item(self.gate_at(theta))

    def gate_at(self, theta: Tensor) -> Tensor:
        """Interpolate the gate between the middles of its bands, (B,)."""
        place = (theta / (math.pi / 2) * GATE_BANDS - 0.5).clamp(0, GATE_BANDS - 1)
        low = place.floor().long().clamp(max=GATE_BANDS - 2)
        return torch.lerp(self.gate[low], self.gate[low + 1], place - low)

    def _padded(self, condition: Condition) -> Condition:
        """Return the condition with its anatomy padded like the latents."""
        if not any(self.padding):
            return condition
        px, py, pz = (n * self.backbone.patch for n in self.padding)
        return replace(condition, anatomy=F.pad(condition.anatomy, (0, pz, 0, py, 0, px)))


def _make_backbone(
    config: BackboneConfig, **shape: Any
) -> Backbone | PatchTransformer | MonaiBackbone:
    """Build the architecture of the settings; MONAI's as large as their hybrid."""
    if config.architecture == "dit":
        return PatchTransformer(config, **shape)
    if config.architecture != "monai":
        return Backbone(config, **shape)
    with torch.device("meta"):
        hybrid = Backbone(replace(config, architecture="hybrid"), **shape)
    return MonaiBackbone(
        matched(config, sum(p.numel() for p in hybrid.parameters()), **shape), **shape
    )


def _per_item(values: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1, 1, 1)
