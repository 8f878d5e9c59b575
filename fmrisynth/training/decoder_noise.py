"""Fit the decoder noise: compare the training runs with what the autoencoder makes of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.model.codec import decode_run
from fmrisynth.model.decoder_noise import LARGEST_CORRELATION, DecoderNoise
from fmrisynth.model.noise.autocovariance import undo_highpass
from fmrisynth.model.noise_level import NoiseLevel
from fmrisynth.preprocess.carrier import least_squares
from fmrisynth.preprocess.cubes import cube_means
from fmrisynth.preprocess.grid import continue_outside
from fmrisynth.preprocess.smoothness import neighbours
from fmrisynth.runtime.progress import track
from fmrisynth.training.prepare import TrainingData, sample_runs

__all__ = ["ReconstructionSums", "burst_share", "fit_decoder_noise"]

GAIN_LIMITS = 0.25, 1.0  # of the evoked gain, whose estimate is noisy in small data sets
RIDGE = 1e-3  # of the regressors' mean square
COARSE_BLOCKS = 2  # edge of a coarse cube, in latent voxels
LARGEST_COARSE_GAIN = 1.25

log = logging.getLogger(__name__)


def fit_decoder_noise(
    autoencoder: VQGAN,
    latents: Sequence[np.ndarray],
    data: TrainingData,
    noise_level: NoiseLevel,
    intensities: Sequence[Tensor] | None,
    seed: int,
    fabric: Fabric,
) -> DecoderNoise:
    """Estimate the statistics of the reconstruction error over the training runs.

    Parameters
    ----------
    autoencoder : VQGAN
        The trained autoencoder.
    latents : sequence of ndarray of shape (N, C, x, y, z)
        Raw latents of each run.
    data : TrainingData
        The runs that the latents are of.
    noise_level : NoiseLevel
        Levels of the runs, which standard deviations are divided by.
    intensities : sequence of Tensor of shape (N,) or None
        Of the frames of each run's latents; None for intensities of 1.
    seed : int
        Seed of the choice of runs.
    fabric : lightning_fabric.Fabric
        Precision.

    Returns
    -------
    DecoderNoise
        On the CPU.
    """
    mask, factor = data.grid.mask, autoencoder.config.factor
    beyond = (continue_outside(mask[None], mask, factor)[0] > 0) & ~mask  # in blocks with brain
    outer = np.zeros(int(beyond.sum()))
    cubes = cube_means(mask, [COARSE_BLOCKS * factor] * 3)
    coarse = np.zeros(2)  # variance of the means of cubes: true, decoded
    pairs = [neighbours(mask, axis) for axis in range(3)]
    shared = np.zeros((3, 2))  # mean products of the errors of neighbours, mean squares
    sums = ReconstructionSums(len(data.vocabulary.trial_types))
    chosen = sample_runs(len(data.runs), seed)
    energies = []  # of each frame's error
    for i in track(chosen, desc="Decoder noise", unit="run"):
        frames = np.asarray(data.runs[i].frames, np.float32)[:, mask]  # T V, %
        raw = torch.from_numpy(np.asarray(latents[i], np.float32))
        with fabric.autocast():
            volumes = decode_run(autoencoder, raw, data.scale, mask)
        levels = noise_level.of_voxels(data.runs[i].noise_sd)
        levels = continue_outside(levels[None], mask, factor)[0]
        evoked = data.conditions[i].design.evoked
        continued = volumes[:, beyond] / levels[beyond]
        rest = least_squares(evoked.reshape(len(evoked), -1), continued)[0]
        outer += np.square(rest).sum(0)
        # where a run has no data there is no error
        decoded, level = volumes[:, mask] * frames.any(0), levels[mask]
        sums.add(frames, decoded, evoked, level)
        error = (frames - decoded) / level
        energies.append(0.5 * np.log(np.maximum(np.square(error).mean(1), 1e-12)))
        for axis, (one, other) in enumerate(pairs):
            power = np.square(error[:, one]).sum() + np.square(error[:, other]).sum()
            shared[axis] += (error[:, one] * error[:, other]).sum(), power / 2
        coarse += [np.square(cubes @ (x / level).T).sum() for x in (frames, decoded)]
    noise = DecoderNoise(data.grid.shape)
    inside = torch.from_numpy(mask)
    noise.decoded_sd[inside] = torch.from_numpy(np.sqrt(sums.decoded / sums.freedom)).float()
    noise.decoded_sd[torch.from_numpy(beyond)] = torch.from_numpy(
        np.sqrt(outer / sums.freedom)
    ).float()
    noise.error_sd[inside] = torch.from_numpy(np.sqrt(sums.error / sums.freedom)).float()
    noise.lag1.fill_(sums.lag1(data.removed_basis))
    noise.evoked_gain.fill_(sums.evoked_gain())
    if intensities is not None:
        noise.burst_share.fill_(burst_share([intensities[i].numpy() for i in chosen], energies))
    ratio = (coarse[0] / max(coarse[1], 1e-12)) ** 0.5
    noise.coarse_gain.fill_(float(np.clip(ratio, 1, LARGEST_COARSE_GAIN)))
    correlation = shared[:, 0] / np.maximum(shared[:, 1], 1e-12)
    limited = np.clip(correlation, -LARGEST_CORRELATION, LARGEST_CORRELATION)
    noise.neighbours.copy_(torch.from_numpy(limited))
    log.info(
        "the autoencoder keeps %.3f of the residuals' variance and %.3f of evoked amplitudes",
        1 - float(np.sum(sums.error) / np.sum(sums.decoded + sums.error)),
        float(noise.evoked_gain),
    )
    return noise


def burst_share(intensities: Sequence[np.ndarray], energies: Sequence[np.ndarray]) -> float:
    """Regress the log intensity of the error's frames on that of the latents' frames.

    Noise of single voxels, the scanner's above all, takes little part in bursts of motion.

    Parameters
    ----------
    intensities : sequence of ndarray of shape (N,)
        Of the latents, one course for each run.
    energies : sequence of ndarray of shape (N,)
        Half the log of the mean square of each frame's error.

    Returns
    -------
    float
        0, an even level, to 1, bursts as large as the latents'.
    """
    both = power = 0.0
    for intensity, energy in zip(intensities, energies, strict=True):
        course = np.log(np.maximum(intensity, 1e-3))
        course = course - course.mean()
        both += float(course @ (energy - energy.mean()))
        power += float(course @ course)
    return float(np.clip(both / power, 0, 1)) if power > 0 else 0.0


class ReconstructionSums:
    """Accumulate sums over runs of decoded series x̂ and reconstruction errors x − x̂.

    Parameters
    ----------
    n_trial_types : int
        Number K of evoked regressors.

    Attributes
    ----------
    decoded, error : ndarray of shape (V,)
        Sums of squares at each voxel, of what evoked responses leave.
    products : ndarray of shape (V,)
        Sum of products of the errors of neighbouring frames.
    freedom : int
        Number of frames less that of the regressors.
    """

    def __init__(self, n_trial_types: int) -> None:
        self.decoded = self.error = self.products = np.zeros(1)
        self.freedom = 0
        # regressor products and regressor-signal products, in either half of each run
        self._moments = np.zeros((2, n_trial_types, n_trial_types))
        self._true = [np.zeros(1, np.float32)] * 2
        self._decoded = [np.zeros(1, np.float32)] * 2

    def add(
        self, frames: np.ndarray, decoded: np.ndarray, evoked: np.ndarray, level: np.ndarray
    ) -> None:
        """Add one run.

        Parameters
        ----------
        frames, decoded : ndarray of shape (T, V)
            True and decoded series.
        evoked : ndarray of shape (T, K, 2)
            Regressors without mean and drift: HRF and derivative.
        level : ndarray of shape (V,)
            Noise level of the run.
        """
        error = frames - decoded
        error -= error.mean(0)
        error /= level
        rest, used = least_squares(evoked.reshape(len(evoked), -1), decoded / level)
        self.decoded = self.decoded + np.square(rest).sum(0)
        # errors hold little of the responses, and lose as many degrees of freedom
        self.error = self.error + np.square(error).sum(0) * (1 - used / len(error))
        self.products = self.products + (error[1:] * error[:-1]).sum(0)
        self.freedom += len(frames) - used
        regressors = evoked[..., 0]
        middle = len(frames) // 2
        for half, part in enumerate((slice(None, middle), slice(middle, None))):
            x = regressors[part]
            self._moments[half] += x.T @ x
            self._true[half] = self._true[half] + x.T @ frames[part]
            self._decoded[half] = self._decoded[half] + x.T @ decoded[part]

    def lag1(self, removed: np.ndarray) -> float:
        """Estimate the errors' lag-1 autocorrelation before mean and drift were removed.

        Parameters
        ----------
        removed : ndarray of shape (N, K)
            Orthonormal regressors that were removed from a run of typical length.
        """
        observed = float(np.mean(self.products / np.maximum(self.error, 1e-9)))
        variance, covariance = undo_highpass(np.array([1.0, observed]), removed)
        return float(covariance / variance)

    def evoked_gain(self) -> float:
        """Estimate the slope of decoded on true evoked effects, by instrumental variables.

        Both effects are noisy, and the noise is decoded too. The effects of the other
        halves of the runs serve as instruments: their noise is almost independent, so
        that only evoked effects count.

        Returns
        -------
        float
            Within `GAIN_LIMITS`; 1 where no evoked effect is reliable.
        """
        if not len(self._moments[0]):  # no run has events
            return 1.0
        ridge = RIDGE * np.trace(self._moments.sum(0)) / len(self._moments[0])
        inverse = [np.linalg.inv(m + ridge * np.eye(len(m))) for m in self._moments]
        true = [i @ t for i, t in zip(inverse, self._true, strict=True)]
        decoded = [i @ d for i, d in zip(inverse, self._decoded, strict=True)]
        numerator = (decoded[0] * true[1]).sum() + (decoded[1] * true[0]).sum()
        denominator = 2 * (true[0] * true[1]).sum()
        if not denominator > 0:
            return 1.0
        log.debug("unclipped evoked gain %.3f", numerator / denominator)
        return float(np.clip(numerator / denominator, *GAIN_LIMITS))
