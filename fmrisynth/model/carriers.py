"""Draw carriers that are nobody's: mean image, noise level and drift.

The mean image and the logarithm of the noise level are, over participants, Gaussian: their mean, a
few principal components that go through both, and a smooth field for what these leave out (as in
probabilistic principal component analysis, Tipping & Bishop 1999). Where the drawn image is dark,
there is no brain.

Legend: X Y Z model grid, Q components, K columns of the drift basis.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from fmrisynth.bids.dataset import BoldRun
from fmrisynth.preprocess.carrier import Carrier, drift_basis
from fmrisynth.preprocess.grid import Grid, resample
from fmrisynth.preprocess.smoothness import FWHM_PER_SIGMA

__all__ = ["COMPONENTS", "MINIMUM_PARTICIPANTS", "CarrierPrior"]

COMPONENTS = 12
MINIMUM_PARTICIPANTS = 6  # a mean of fewer images would show the people in it
DARKEST = 0.05  # of the median, below which a voxel is outside, as in a real run
MOST_DEVIATION = 2.5  # standard deviations between participants
MEDIAN = 1000.0  # of a drawn mean image: a scanner's units mean nothing
DRIFT_FWHM = 30.0  # mm, of the fields that the cosines of a drift are multiplied with


class CarrierPrior(nn.Module):
    """Hold the distribution of the participants' carriers; nobody's own is in it.

    Parameters
    ----------
    shape : tuple of int
        (X, Y, Z).

    Attributes
    ----------
    mean : Tensor of shape (2, X, Y, Z)
        Of the mean image, relative to its median, and of the logarithm of the noise level (%).
    components : Tensor of shape (Q, 2, X, Y, Z)
        Principal components, each times its standard deviation.
    residual_sd : Tensor of shape (2, X, Y, Z)
        Standard deviation of what the components leave of a new participant.
    residual_fwhm : Tensor of shape (2,)
        Smoothness of that, mm.
    drift_sd : Tensor of shape (X, Y, Z)
        Standard deviation over time of a typical run's drift, %.
    present : Tensor of shape (), bool
        Whether there were participants enough to learn from.
    """

    mean: Tensor
    components: Tensor
    residual_sd: Tensor
    residual_fwhm: Tensor
    drift_sd: Tensor
    present: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2, *shape))
        self.register_buffer("components", torch.zeros(COMPONENTS, 2, *shape))
        self.register_buffer("residual_sd", torch.zeros(2, *shape))
        self.register_buffer("residual_fwhm", torch.zeros(2))
        self.register_buffer("drift_sd", torch.zeros(shape))
        self.register_buffer("present", torch.zeros((), dtype=torch.bool))

    def typical(self, grid: Grid, like: BoldRun) -> Carrier:
        """Give the carrier of the mean participant, without drift.

        Parameters
        ----------
        grid : Grid
            The model grid.
        like : BoldRun
            Run whose grid and TR the carrier gets, and nothing else.
        """
        drift = np.zeros((0, *grid.shape), np.float32)
        return self._on_grid_of(like, grid, self.mean.cpu().double().numpy(), drift)

    def draw(
        self,
        grid: Grid,
        like: BoldRun,
        high_pass: float,
        participant: int,
        run: int,
    ) -> Carrier:
        """Draw a carrier.

        Parameters
        ----------
        grid, like : Grid, BoldRun
            As for `typical`; the drift is as long as the run.
        high_pass : float
            Highest drift frequency, Hz.
        participant, run : int
            Seeds of mean image and noise level, and of the drift.
        """
        rng = np.random.default_rng(participant)
        size = float(np.linalg.norm(grid.affine[:3, 0]))
        mean, components, residual_sd = (
            part.cpu().double().numpy() for part in (self.mean, self.components, self.residual_sd)
        )
        weights = rng.standard_normal(len(components))
        fields = [_smooth_field(rng, grid, float(f) / size) for f in self.residual_fwhm]
        deviation = np.tensordot(weights, components, axes=1) + residual_sd * np.stack(fields)
        # of a logarithm: a rare draw would be noise as large as the image
        limit = MOST_DEVIATION * np.sqrt(np.square(components).sum(0) + np.square(residual_sd))
        images = mean + np.clip(deviation, -limit, limit)
        rng = np.random.default_rng(run)
        n_volumes = like.n_volumes
        count = drift_basis(n_volumes, like.t_r, high_pass).shape[1]
        size_of = 1 / np.arange(1, count + 1)  # slow drifts are large
        size_of = size_of * (n_volumes / max(np.square(size_of).sum(), 1e-12)) ** 0.5
        sd = self.drift_sd.cpu().double().numpy()
        drift = np.array(
            [s * sd * _smooth_field(rng, grid, DRIFT_FWHM / size) for s in size_of]
        ).reshape(count, *grid.shape)
        return self._on_grid_of(like, grid, images, drift)

    def _on_grid_of(
        self, like: BoldRun, grid: Grid, images: np.ndarray, drift: np.ndarray
    ) -> Carrier:
        """Bring a carrier from the model grid to a run's; its mask is where the image is bright."""
        x, y, z = like.shape

        def moved(data: np.ndarray, interpolation: str = "linear") -> np.ndarray:
            image = np.asarray(data, np.float32)
            return resample(image, grid.affine, like.affine, (x, y, z), interpolation)

        brain = grid.mask & (images[0] > DARKEST)
        mask = moved(brain, "nearest") > 0
        maps = np.stack([images[0] * brain, np.exp(images[1]) * brain, brain], axis=-1)
        mean, noise_sd, inside = np.moveaxis(moved(maps), -1, 0)
        # outside of the brain there is no image that the brain's edge could be mixed with
        mean, noise_sd = (np.where(mask, v / np.maximum(inside, 1e-3), 0) for v in (mean, noise_sd))
        mean *= MEDIAN / np.median(mean[mask])
        drifts = [moved(d) * mask for d in drift]
        return Carrier(
            mean.astype(np.float32),
            np.array(drifts, np.float32).reshape(len(drift), x, y, z),
            noise_sd.astype(np.float32),
            mask,
            like.affine,
            like.t_r,
        )


def _smooth_field(rng: np.random.Generator, grid: Grid, fwhm: float) -> np.ndarray:
    """Draw a smooth field of unit variance in the brain; the smoothness is in voxels."""
    field: np.ndarray = gaussian_filter(rng.standard_normal(grid.shape), fwhm / FWHM_PER_SIGMA)
    variance = _power_after_smoothing(grid.shape, fwhm / FWHM_PER_SIGMA)
    return field / np.sqrt(variance)


def _power_after_smoothing(shape: tuple[int, int, int], sigma: float) -> float:
    """Return the variance that white noise has after the filter, far from the edges."""
    impulse = np.zeros(shape)
    impulse[tuple(n // 2 for n in shape)] = 1
    return float(np.square(gaussian_filter(impulse, sigma)).sum())
