"""Predict the evoked response of a participant to events, and nothing of the noise.

The mean of the standardised latents is

    R(t, p) = Σ_v Σ_d regressor(t, v, d) Σ_j coefficient(v, d, j) · map_j(p),

with d the HRF and its time derivative. The group maps are those of a shrunk GLM. A network
that sees the mean image alone changes them from participant to participant: at each place it
predicts a gain (a matrix over channels) and a displacement (along the maps' gradients), which
all trial types share, since anatomy moves and scales what a region does whatever makes it do it.
What anatomy does not foretell is known from a participant's runs, or drawn
(`fmrisynth.model.individuals`).

R never sees the noisy latents, so that it is exact for every noise level of the diffusion.

Legend: N frames, V trial types, J maps, C latent channels, x y z latent grid, P latent voxels
of the brain, X Y Z model grid.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from fmrisynth.config.diffusion import ResponseConfig
from fmrisynth.model.individuals import IndividualInference, IndividualPrior

__all__ = ["IndividualResponse", "Response"]

PLACE_CHANNELS = 4


class IndividualResponse(nn.Module):
    """Predict gain and displacement of a participant's responses from the mean image.

    Parameters
    ----------
    channels : int
        Latent channels C.
    mask : Tensor of shape (x, y, z), bool
        Latent voxels that hold brain.
    factor : int
        Voxels per latent voxel along each axis.
    width : int
        Hidden channels.
    """

    mask: Tensor
    anatomy_mean: Tensor
    anatomy_sd: Tensor
    amplitude: Tensor

    def __init__(self, channels: int, mask: Tensor, factor: int, width: int) -> None:
        super().__init__()
        self.channels, self.factor = channels, factor
        shape, features = tuple(mask.shape), factor**3
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("anatomy_mean", torch.zeros(features, *shape))
        self.register_buffer("anatomy_sd", torch.ones(()))
        self.register_buffer("amplitude", torch.zeros(()))
        self.places = nn.Parameter(torch.randn(PLACE_CHANNELS, *shape) * 0.1)
        self.local = nn.Conv3d(features, width, 3, padding=1)
        self.gate = nn.Conv3d(PLACE_CHANNELS, width, 1)
        self.head = nn.Conv3d(width, channels * channels + 3, 1)
        self.start(0)

    def start(self, seed: int) -> None:
        """Start anew at no deviation, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in (self.local, self.gate, self.head):
                layer.reset_parameters()
            nn.init.normal_(self.places, std=0.1)
        for layer in (self.gate, self.head):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def fold(self, mean: Tensor) -> Tensor:
        """Fold mean images (B, X, Y, Z) to features (B, f³, x, y, z)."""
        f = self.factor
        return rearrange(mean, "b (x p) (y q) (z r) -> b (p q r) x y z", p=f, q=f, r=f)

    def standardise(self, mean: Tensor) -> Tensor:
        """Express mean images as deviations from the training participants' mean."""
        features = (self.fold(mean) - self.anatomy_mean) / self.anatomy_sd
        return features.clamp(-5, 5) * self.mask

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        """Predict deviations of maps, before `amplitude` is applied.

        Parameters
        ----------
        features : Tensor of shape (B, f³, x, y, z)
            From `standardise`.
        maps : Tensor of shape (J, C, x, y, z)
            Group maps.

        Returns
        -------
        Tensor of shape (B, J, C, x, y, z)
        """
        # linear in the features, with a factor of its own at each place
        out = self.head(self.local(features) * (1 + self.gate(self.places[None])))
        gain, shift = out[:, : self.channels**2], out[:, self.channels**2 :]
        gain = gain.unflatten(1, (self.channels, self.channels))
        gradients = torch.stack([(maps.roll(-1, k) - maps.roll(1, k)) / 2 for k in (2, 3, 4)])
        deviation = torch.einsum("bcdxyz,jdxyz->bjcxyz", gain, maps)
        deviation = deviation + torch.einsum("bkxyz,kjcxyz->bjcxyz", shift, gradients)
        return deviation * self.mask


class Response(nn.Module):
    """Predict the mean of the standardised latents from events and anatomy.

    Parameters
    ----------
    config : ResponseConfig
        Kind, rank and sizes.
    n_trial_types : int
        V.
    channels : int
        Latent channels C.
    mask : Tensor of shape (x, y, z), bool
        Latent voxels that hold brain.
    factor : int
        Voxels per latent voxel along each axis.

    Attributes
    ----------
    maps : Tensor of shape (J, C, x, y, z)
        Group maps, shrunk.
    coefficients : Tensor of shape (V, 2, J)
        How much of each map a trial type evokes, by HRF and derivative.
    prior : IndividualPrior
        Distribution of the individual differences that anatomy does not foretell.
    restored : Tensor of shape (J,)
        Factor that gives a shrunk map the size of the true one. The best prediction is smaller
        than the truth, of which it knows a part; a synthetic response is not to be.
    """

    maps: Tensor
    coefficients: Tensor
    restored: Tensor

    def __init__(
        self,
        config: ResponseConfig,
        n_trial_types: int,
        channels: int,
        mask: Tensor,
        factor: int,
    ) -> None:
        super().__init__()
        self.config = config
        shape, rank = tuple(mask.shape), config.rank
        self.register_buffer("maps", torch.zeros(rank, channels, *shape))
        self.register_buffer("coefficients", torch.zeros(n_trial_types, 2, rank))
        self.register_buffer("restored", torch.ones(rank))
        n_fields = config.individual_fields if config.kind != "none" else 0
        self.prior = IndividualPrior(n_fields, n_trial_types, rank, channels, mask)
        self.individual: IndividualResponse | None = None
        if config.kind == "network":
            self.individual = IndividualResponse(channels, mask, factor, config.width)

    @property
    def present(self) -> bool:
        """Whether there is a response; without one the network has to learn it."""
        return self.config.kind != "none"

    def maps_of(self, mean: Tensor | None) -> Tensor:
        """Predict a participant's maps (J, C, x, y, z) from the mean image (X, Y, Z).

        Without a mean image, or without a network, they are the group maps.
        """
        if self.individual is None or mean is None:
            return self.maps
        deviation = self.individual(self.individual.standardise(mean[None]), self.maps)[0]
        return self.maps + self.individual.amplitude * deviation

    @property
    def synthetic_maps(self) -> Tensor:
        """Group maps with the size of true ones, (J, C, x, y, z)."""
        return self.maps * self.restored[:, None, None, None, None]

    def inference(self) -> IndividualInference:
        """Make what infers and draws participants' deviations from `prediction`."""
        return IndividualInference(self.prior, self.coefficients, self.synthetic_maps)

    def prediction(self, mean: Tensor | None) -> Tensor:
        """Predict the coefficients (V, 2, C, x, y, z) of a synthetic participant by anatomy.

        Parameters
        ----------
        mean : Tensor of shape (X, Y, Z) or None
            The carrier's mean image on the model grid, relative to its median.
        """
        return self._combine(self.maps_of(mean) * self.restored[:, None, None, None, None])

    def expectation(self, mean: Tensor | None) -> Tensor:
        """Make the best prediction of the coefficients of a participant, (V, 2, C, x, y, z).

        Individual differences are measured from it. Measured from `prediction`, which is larger,
        they would make everybody's response smaller on average.

        Parameters
        ----------
        mean : Tensor of shape (X, Y, Z) or None
            As for `prediction`.
        """
        return self._combine(self.maps_of(mean))

    def _combine(self, maps: Tensor) -> Tensor:
        """Weight maps (J, C, x, y, z) as each trial type does, (V, 2, C, x, y, z)."""
        return torch.einsum("vdj,jcxyz->vdcxyz", self.coefficients, maps)

    def forward(self, evoked: Tensor, mean: Tensor | None) -> Tensor:
        """Compute the best prediction of a run's standardised latents.

        Parameters
        ----------
        evoked : Tensor of shape (N, V, 2)
            Regressors without mean and drift.
        mean : Tensor of shape (X, Y, Z) or None
            The carrier's mean image on the model grid, relative to its median.

        Returns
        -------
        Tensor of shape (N, C, x, y, z)
        """
        weights = torch.einsum("nvd,vdj->nj", evoked, self.coefficients)
        return torch.einsum("nj,jcxyz->ncxyz", weights, self.maps_of(mean))

    def synthetic(self, evoked: Tensor, mean: Tensor | None, deviation: Tensor | None) -> Tensor:
        """Compute the response of a synthetic participant, (N, C, x, y, z).

        Parameters
        ----------
        evoked, mean : Tensor
            As for `forward`.
        deviation : Tensor of shape (V, 2, C, x, y, z) or None
            The participant's deviation from `prediction`; None for no deviation.
        """
        coefficients = self.prediction(mean)
        if deviation is not None:
            coefficients = coefficients + deviation.to(coefficients)
        return torch.einsum("nvd,vdcxyz->ncxyz", evoked, coefficients)
