"""Predict the velocity of noisy latents by a backbone and an evoked-response pathway.

x_θ = cos θ · x_0 + sin θ · ε,  v = cos θ · ε − sin θ · x_0.

If x_0 is an evoked mean m plus Gaussian noise of the same covariance as ε, the
exact velocity is −sin θ · m: the backbone need only learn the departure from a "GLM plus
coloured noise" model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmrisynth.config.diffusion import BackboneConfig, DenoiserConfig, EvokedConfig
from fmrisynth.model.denoiser.backbone import Backbone, Encoded
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.denoiser.monai_unet import MonaiBackbone, matched
from fmrisynth.model.individual_differences import draw_difference

RIDGE = 1e-2  # of the regressors' mean square

__all__ = ["Denoiser", "EvokedResponse"]


class EvokedResponse(nn.Module):
    """Compute evoked responses by a GLM of low rank in latent space.

    mean(t) = Σ_v Σ_d regressor(t, v, d) Σ_j coefficient(v, d, j) · map_j, with d the HRF
    and its derivative. The coefficients of the HRF differ between participants (see
    `fmrisynth.model.individual_differences`); training fits those of the mean response.
    """

    differences: Tensor

    def __init__(
        self,
        config: EvokedConfig,
        n_trial_types: int,
        channels: int,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.zeros(config.rank, channels, *shape))
        self.coefficients = nn.Parameter(torch.randn(n_trial_types, 2, config.rank))
        self.register_buffer(
            "differences", torch.zeros(config.participant_rank, n_trial_types, config.rank)
        )

    @torch.no_grad()
    def start(self, moments: Tensor, products: Tensor, mask: Tensor) -> None:
        """Start at the least-squares fit of rank J (reduced-rank regression, Izenman 1975).

        Parameters
        ----------
        moments : Tensor of shape (V·2, V·2), float64
            Sum over frames of regressor times regressor.
        products : Tensor of shape (V·2, C·P), float64
            Sum of regressor times latent, at P voxels.
        mask : Tensor of shape (X, Y, Z), bool
            The P voxels.
        """
        ridge = RIDGE * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
        factor = torch.linalg.cholesky(moments + ridge)  # the fit is L⁻ᵀ L⁻¹ Xᵀ Z
        whitened = torch.linalg.solve_triangular(factor, products, upper=False)
        left, values, right = torch.linalg.svd(whitened, full_matrices=False)
        rank = min(len(self.maps), len(values))
        left, values, right = left[:, :rank], values[:rank], right[:rank]
        coefficients = torch.linalg.solve_triangular(factor.T, left, upper=True)
        # share the scale so that coefficients are of order one
        size = coefficients.square().mean(0).sqrt().clamp(min=1e-12)
        self.coefficients.zero_()
        self.coefficients[..., :rank] = (coefficients / size).view(-1, 2, rank).float()
        self.maps.zero_()
        maps = (right * (values * size * len(self.maps) ** 0.5)[:, None]).float()
        self.maps[:rank, :, mask] = maps.view(rank, self.maps.shape[1], -1)

    def draw_coefficients(self, participant_seed: int) -> Tensor:
        """Draw the coefficients (V, 2, J) of one synthetic participant."""
        individual = self.coefficients.clone()
        # the seed itself is that of the participant's networks (`ModalNoise`)
        individual[:, 0] += draw_difference(self.differences, participant_seed + 1)
        return individual

    def forward(self, condition: Condition, participant_seed: int | None = None) -> Tensor:
        """Compute the evoked mean (B, T, C, X, Y, Z) of a batch of windows.

        Parameters
        ----------
        condition : Condition
            Of the B windows.
        participant_seed : int or None
            Seed of a synthetic participant; None for the mean response.
        """
        coefficients: Tensor = self.coefficients
        if participant_seed is not None:
            coefficients = self.draw_coefficients(participant_seed)
        weights = torch.einsum("btvd,vdj->btj", condition.evoked, coefficients)
        weights = weights * condition.condition_mask[:, None, None] / len(self.maps) ** 0.5
        return torch.einsum("btj,jcxyz->btcxyz", weights, self.maps)


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
        # the U-shape halves the grid at each level: pad it where it does not divide
        multiple = 2 ** (len(config.backbone.widths) - 1)
        self.padding = tuple(-n % multiple for n in shape)
        self.backbone = _make_backbone(
            config.backbone,
            vocabulary=vocabulary,
            n_frames=config.n_frames,
            channels=channels,
            grid=tuple(n + p for n, p in zip(shape, self.padding, strict=True)),
            anatomy_patch=patch,
        )
        self.evoked: EvokedResponse | None = None
        if config.evoked.enabled:
            self.evoked = EvokedResponse(
                config.evoked, len(vocabulary.trial_types), channels, shape
            )
        self.register_buffer("mask", mask.bool(), persistent=False)

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
        out = self.predict(x, theta, self.encode(condition))
        return out if self.evoked is None else out + self.evoked_output(condition, theta)

    def encode(self, condition: Condition) -> Encoded:
        """Encode the condition for the backbone, the same at every angle."""
        return self.backbone.encode(self._padded(condition))

    def predict(self, x: Tensor, theta: Tensor, encoded: Encoded) -> Tensor:
        """Compute the backbone's part of the output of `forward`."""
        px, py, pz = self.padding
        h = F.pad(x, (0, pz, 0, py, 0, px)) if any(self.padding) else x
        out = self.backbone(h, theta, encoded).float()
        return out[..., : x.shape[-3], : x.shape[-2], : x.shape[-1]] * self.mask

    def evoked_output(self, condition: Condition, theta: Tensor) -> Tensor:
        """Compute the evoked pathway's part of the output of `forward`."""
        assert self.evoked is not None
        return self.evoked_share(theta) * self.evoked(condition) * self.mask

    def as_velocity(self, x: Tensor, theta: Tensor, out: Tensor) -> Tensor:
        """Turn the network's output into v, which is (ε − sin θ · x) / cos θ for ε-prediction."""
        if self.config.prediction == "v":
            return out
        cos, sin = _per_item(theta.cos()), _per_item(theta.sin())
        return (out - sin * x) / cos.clamp(min=1e-3)

    def evoked_share(self, theta: Tensor) -> Tensor:
        """Weight the evoked mean in the output by −sin θ in v and −sin θ cos θ in ε."""
        share = -theta.sin()
        if self.config.prediction == "epsilon":
            share = share * theta.cos()
        return _per_item(share)

    def _padded(self, condition: Condition) -> Condition:
        """Return the condition with its anatomy padded like the latents."""
        if not any(self.padding):
            return condition
        px, py, pz = (n * self.backbone.patch for n in self.padding)
        return replace(condition, anatomy=F.pad(condition.anatomy, (0, pz, 0, py, 0, px)))


def _make_backbone(config: BackboneConfig, **shape: Any) -> Backbone | MonaiBackbone:
    """Build the architecture of the settings; MONAI's as large as their hybrid."""
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
