"""Predict the velocity of noisy latent windows: backbone, mode head, mask and gates in one object.

x_θ = cos θ · x_0 + sin θ · ε,  v = cos θ · ε − sin θ · x_0.

Latents come without evoked response and noise level (`fmrisynth.model.response`,
`fmrisynth.model.noise_level`). If what is left is Gaussian with the covariance of ε, the exact
velocity is 0: backbone and mode head (`fmrisynth.model.denoiser.mode_head`) need only learn what
those statistics leave out, and their gates, one factor for each band of angles, say how much of
what they learned holds for new participants.
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
from fmrisynth.model.denoiser.mode_head import ModeHead
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

    Attributes
    ----------
    gate, mode_gate : Tensor of shape (GATE_BANDS,)
        Shares of the backbone's and of the mode head's velocity, in [0, 1].
    mode_head : ModeHead or None
        None where the settings, or the noise, have no modes.
    """

    mask: Tensor
    gate: Tensor
    mode_gate: Tensor

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
        self.mode_head = ModeHead(config.mode_width) if config.reads_modes else None
        # models without a head, such as those of earlier versions, have no gate of it
        opened = torch.ones(GATE_BANDS) if config.reads_modes else torch.zeros(GATE_BANDS)
        self.register_buffer("mode_gate", opened, persistent=config.reads_modes)

    @property
    def closed(self) -> bool:
        """Whether no part has a say at any angle."""
        return not (self.gate.any() or self.mode_gate.any())

    def attach(self, mode_maps: Tensor) -> None:
        """Use the modes (K, C, X, Y, Z) of the diffusion's noise, which the mode head reads."""
        if self.mode_head is not None:
            self.mode_head.attach(mode_maps)

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
        encoded = self.encode(condition)
        out = self.predict(x, theta, encoded)
        return out if self.mode_head is None else out + self.mode_velocity(x, theta, encoded)

    def encode(self, condition: Condition) -> Encoded:
        """Encode the condition for the backbone, the same at every angle."""
        encoded = self.backbone.encode(self._padded(condition))
        if self.mode_head is None:
            return encoded
        return encoded._replace(mode_sd=condition.mode_sd)

    def predict(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Compute the backbone's part of the output of `forward`."""
        px, py, pz = self.padding
        h = F.pad(x, (0, pz, 0, py, 0, px)) if any(self.padding) else x
        out = self.backbone(h, theta, encoded).float()
        return out[..., : x.shape[-3], : x.shape[-2], : x.shape[-1]] * self.mask

    def mode_velocity(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Compute the mode head's part of the velocity, (B, T, C, X, Y, Z), where there is one."""
        assert self.mode_head is not None
        assert encoded.mode_sd is not None  # `encode` puts it there
        velocity: Tensor = self.mode_head(x, theta, encoded.mode_sd[: len(x)])
        return velocity

    def velocity(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Predict the velocity of (B, T, C, X, Y, Z), each part scaled by its gate."""
        out = self.as_velocity(x, theta, self.predict(x, theta, encoded))
        return out + self.gated_modes(x, theta, encoded)

    def gated_modes(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Compute `mode_velocity`, scaled by its gate; zero without a mode head."""
        if not self.mode_gate.any():
            return torch.zeros_like(x)
        share = _at_angles(self.mode_gate, theta)
        return self.mode_velocity(x, theta, encoded) * _per_item(share)

    def as_velocity(self, x: Tensor, theta: Tensor, out: Tensor) -> Tensor:
        """Turn the backbone's output into the velocity, scaled by its gate."""
        share = _per_item(_at_angles(self.gate, theta))
        return share * self._velocity_of(x, theta, out)

    def ungated(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Predict the backbone's velocity as if its gate were open."""
        return self._velocity_of(x, theta, self.predict(x, theta, encoded))

    def _velocity_of(self, x: Tensor, theta: Tensor, out: Tensor) -> Tensor:
        """Turn the backbone's output into a velocity.

        From ε follows x_0 = (x − sin θ · ε) / cos θ, with an error that grows without bound
        towards pure noise, where ε says nothing of x_0. It is shrunk by the share of it that
        is signal if the network is off by `EPSILON_ERROR`.
        """
        if self.config.prediction == "epsilon":
            cos, sin = _per_item(theta.cos()), _per_item(theta.sin())
            x_0 = (x - sin * out) * cos / (cos**2 + EPSILON_ERROR**2)
            out = cos * out - sin * x_0
        return out

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


def _at_angles(gate: Tensor, theta: Tensor) -> Tensor:
    """Interpolate a gate between the middles of its bands, (B,)."""
    place = (theta / (math.pi / 2) * GATE_BANDS - 0.5).clamp(0, GATE_BANDS - 1)
    low = place.floor().long().clamp(max=GATE_BANDS - 2)
    return torch.lerp(gate[low], gate[low + 1], place - low)


def _per_item(values: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1, 1, 1)
