"""Define what every noise model can do, so that callers need not know which one they have.

Legend: N frames, C latent channels, X Y Z latent grid, K removed regressors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from fmrisynth.preprocess.carrier import removed_basis

__all__ = ["NoiseModel", "RunNoise", "VoxelNoise", "remove_mean_and_drift"]

RUNS_THAT_SPREAD = 3  # whose standard deviation is worth something


@dataclass(frozen=True)
class VoxelNoise:
    """Hold what a participant's voxels are like, on the grid of the runs.

    Attributes
    ----------
    lag1 : float
        Mean autocorrelation at lag 1.
    fwhm : tuple of float
        Smoothness along each axis of the grid, mm; 0 where neighbours are not correlated.
    regions : float
        Standard deviation of a region's mean over that of its voxels; 0 where it is not known.
    regions_spread : float
        Standard deviation of its log over the participant's runs; 0 where these are too few.
    """

    lag1: float
    fwhm: tuple[float, float, float]
    regions: float = 0.0
    regions_spread: float = 0.0

    @classmethod
    def average(cls, several: Sequence[VoxelNoise]) -> VoxelNoise | None:
        """Average over runs; None of none."""
        if not several:
            return None
        x, y, z = np.mean([voxels.fwhm for voxels in several], axis=0).tolist()
        logs = np.log([voxels.regions for voxels in several if voxels.regions > 0])
        return cls(
            float(np.mean([voxels.lag1 for voxels in several])),
            (x, y, z),
            float(np.exp(logs.mean())) if logs.size else 0.0,
            float(logs.std(ddof=1)) if logs.size >= RUNS_THAT_SPREAD else 0.0,
        )


@dataclass(frozen=True)
class RunNoise:
    """Hold what a run shows of its participant's noise.

    Attributes
    ----------
    courses : Tensor of shape (N, K)
        Of K spatial patterns of a noise model, float16.
    remainder : Tensor of shape (C, P)
        Mean square of what the patterns leave, inside the brain, float16.
    remainder_lags : Tensor of shape (L,)
        Autocorrelation of what the patterns leave, over all values, float32.
    voxels : VoxelNoise or None
        Of the run's voxels; None where it is not known.
    """

    courses: Tensor
    remainder: Tensor
    remainder_lags: Tensor
    voxels: VoxelNoise | None = None


class NoiseModel(nn.Module, ABC):
    """Draw Gaussian noise for the diffusion, of unit variance inside the brain, zero outside.

    `sample_run` and `sample_window` draw from one distribution: a window of a whole
    run's noise, made `steady`, is distributed as the noise of a window.

    Attributes
    ----------
    channels : int
        C.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    voxels : VoxelNoise or None
        What voxels are to be like; None for decoder noise as it was learned, whatever comes of it.
    """

    channels: int
    mask: Tensor
    voxels: VoxelNoise | None = None

    @abstractmethod
    def fit(self, fields: Iterable[Tensor], removed: np.ndarray) -> Self:
        """Estimate the model from standardised latents.

        Parameters
        ----------
        fields : iterable of Tensor of shape (N, C, X, Y, Z)
            One per run, ordered by participant, of zero mean and unit variance at
            each voxel and channel over the training set; runs may differ in N.
        removed : ndarray of shape (N, K)
            Orthonormal: mean and drift, which were removed from the fields, for a
            run of typical length. The noise is estimated as it was before, see
            `fmrisynth.model.noise.autocovariance.undo_highpass`.
        """

    def fit_individual_differences(
        self, fields: Iterable[Tensor], participants: Sequence[str]
    ) -> Self:
        """Estimate how participants differ, from more runs than the rest needs.

        A model without individual differences does not read the fields.

        Parameters
        ----------
        fields : iterable of Tensor of shape (N, C, X, Y, Z)
            As for `fit`; one is held in memory at a time.
        participants : sequence of str
            Participant label of each field; those of one participant follow each other.
        """
        return self

    @property
    def individual(self) -> bool:
        """Whether runs tell how their participants differ from the group; see `infer`."""
        return False

    @property
    def variance(self) -> Tensor:
        """Variance at each place, (C, X, Y, Z): one in the brain, unless it was inferred."""
        return self.mask.float().expand(self.channels, *self.mask.shape)

    @property
    def mode_maps(self) -> Tensor:
        """Orthonormal modes in order of their variance, (K, C, X, Y, Z); K is 0 without modes."""
        return torch.zeros(0, self.channels, *self.mask.shape)

    @property
    def mode_sd(self) -> Tensor:
        """Standard deviation of a window's noise along each of `mode_maps`, (K,); `steady`."""
        return torch.zeros(0)

    def statistics(self, noise: Tensor) -> RunNoise | None:
        """Reduce a run's noise to what it shows of the participant; None where that is nothing.

        Parameters
        ----------
        noise : Tensor of shape (N, C, X, Y, Z)
            As for `fit`.
        """
        return None

    def infer(self, runs: Sequence[RunNoise], removed: np.ndarray) -> NoiseModel:
        """Infer the noise of one participant, whose variance need not be one.

        Parameters
        ----------
        runs : sequence of RunNoise
            From `statistics`. A model without individual differences ignores them.
        removed : ndarray of shape (N, K)
            As for `fit`: mean and drift, which the runs are without.

        Returns
        -------
        NoiseModel
            Draws the participant's noise, whatever the participant's seed.
        """
        return self

    def divide_lags(self, agreement: Tensor, removed: np.ndarray) -> None:
        """Prepare runs and windows for intensities, by which the autocovariance is lowered.

        Parameters
        ----------
        agreement : Tensor of shape (L,)
            By how much, at each lag; see `fmrisynth.model.intensity.FrameIntensity.agreement`.
        removed : ndarray of shape (N, K)
            As for `fit`.
        """

    def frame_energy(self, noise: Tensor) -> Tensor:
        """Measure how loud each frame of a run is, (N,): the mean square, 1 on average.

        Parameters
        ----------
        noise : Tensor of shape (N, C, X, Y, Z)
            As for `fit`.
        """
        return noise[..., self.mask].square().flatten(1).mean(1)

    def fit_steadiness(self, runs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure what dividing runs by their intensities leaves of the noise, from then on.

        Parameters
        ----------
        runs : iterable of (Tensor of shape (N, C, X, Y, Z), Tensor of shape (N,))
            Noise as for `fit`, and the intensities of its frames.
        """

    def steady(self, noise: Tensor) -> Tensor:
        """Scale noise as dividing by intensities does: windows are drawn like that.

        What is loud in the frames that are loud as a whole loses more than other noise does.

        Parameters
        ----------
        noise : Tensor of shape (N, C, X, Y, Z)
            As it is drawn for a run.
        """
        return noise

    def unsteady(self, noise: Tensor) -> Tensor:
        """Scale noise back; the inverse of `steady`."""
        return noise

    @abstractmethod
    def sample_run(
        self, n_frames: int, t_r: float, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw the noise of a whole run, without mean and drift where the latents have none.

        Parameters
        ----------
        n_frames : int
            Frames N.
        t_r : float
            Repetition time, s.
        generator : torch.Generator
            CPU generator of all that is new in every draw.
        participant_seed : int
            Seed of all that the runs of one participant have in common.

        Returns
        -------
        Tensor of shape (N, C, X, Y, Z)
            float32, on the model's device.
        """

    @abstractmethod
    def sample_window(
        self, n_frames: int, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw the noise of a window of training, `steady`, (N, C, X, Y, Z) float32.

        Parameters
        ----------
        n_frames, generator, participant_seed : int, torch.Generator, int
            As for `sample_run`.
        """


def remove_mean_and_drift(noise: Tensor, t_r: float, high_pass: float | None) -> Tensor:
    """Remove from noise what preprocessing removes from a run.

    Parameters
    ----------
    noise : Tensor of shape (N, ...)
        Noise of a whole run.
    t_r : float
        Repetition time, s.
    high_pass : float or None
        Highest drift frequency, Hz; None removes nothing.
    """
    if high_pass is None:
        return noise
    projector = _drift_projector(len(noise), t_r, high_pass).to(noise.device)
    return noise - torch.tensordot(projector, noise, dims=1)


@lru_cache(maxsize=8)  # an ancestral sampler asks for the same at every step
def _drift_projector(n_frames: int, t_r: float, high_pass: float) -> Tensor:
    """Project onto mean and drift, (N, N)."""
    basis = torch.from_numpy(removed_basis(n_frames, t_r, high_pass)).float()
    return basis @ basis.T
