"""Describe how loud the noise of a run is, place by place, relative to a typical run.

Participants differ in their noise level by far more than any other quantity does. Latents are
divided by the level before they are learned from, and multiplied by it after sampling, so
that neither noise model nor network has to average over loud and quiet participants.

Legend: X Y Z model grid, x y z latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from fmrisynth.preprocess.run_maps import median_map
from fmrisynth.preprocess.smoothness import FWHM_PER_SIGMA

__all__ = ["NoiseLevel"]

SMOOTHNESS = 20.0  # mm FWHM of the map of log ratios: vessels differ, levels of regions are kept
RANGE = 8.0  # a level outside of [1 / RANGE, RANGE] is an artefact of the brain's edge


class NoiseLevel(nn.Module):
    """Compare a run's noise with that of a typical training run.

    Parameters
    ----------
    mask : ndarray of shape (X, Y, Z), bool
        Brain on the model grid.
    voxel_size : float
        Edge of the model grid's voxels, mm.
    factor : int
        Voxels per latent voxel along each axis.
    enabled : bool
        False gives every run the level 1.

    Attributes
    ----------
    typical_sd : Tensor of shape (X, Y, Z)
        Median over the training runs of the temporal standard deviation (%) that drift and
        evoked responses leave.
    run_spread : Tensor of shape ()
        Standard deviation, over the runs of a participant, of the log level.
    """

    typical_sd: Tensor
    run_spread: Tensor

    def __init__(
        self, mask: np.ndarray, voxel_size: float, factor: int, *, enabled: bool = True
    ) -> None:
        super().__init__()
        self.brain, self.factor, self.enabled = mask, factor, enabled
        self.sigma = SMOOTHNESS / FWHM_PER_SIGMA / voxel_size
        self.register_buffer("typical_sd", torch.zeros(mask.shape))
        self.register_buffer("run_spread", torch.zeros(()))

    def fit(self, noise_sd: Sequence[np.ndarray], participants: Sequence[str]) -> NoiseLevel:
        """Set the typical level to the median over runs, and the spread within participants.

        Parameters
        ----------
        noise_sd : sequence of ndarray of shape (X, Y, Z)
            Temporal standard deviation (%) of each run's noise; 0 where the run has no brain. Read
            more than once.
        participants : sequence of str
            Participant of each run.
        """
        self.typical_sd.copy_(torch.from_numpy(median_map(noise_sd)))
        typical = self.typical_sd.numpy()
        logs: dict[str, list[float]] = {}
        for sd, participant in zip(noise_sd, participants, strict=True):
            known = self.brain & (sd > 0) & (typical > 0)
            if known.any():
                level = float(np.median(np.log(sd[known] / typical[known])))
                logs.setdefault(participant, []).append(level)
        several = [levels for levels in logs.values() if len(levels) > 1]
        freedom = sum(len(levels) - 1 for levels in several)
        squares = sum(float(np.var(levels)) * len(levels) for levels in several)
        self.run_spread.fill_((squares / max(freedom, 1)) ** 0.5 if self.enabled else 0.0)
        return self

    def draw_run(self, generator: torch.Generator, n_seen: int = 0) -> float:
        """Draw by which factor a run is louder than what is known of its participant.

        The mean of K other runs is itself off by σ / √K. What is drawn has the rest of the
        variance, so that runs differ from their participant by σ, the spread of real ones.

        Parameters
        ----------
        generator : torch.Generator
            On the CPU.
        n_seen : int
            Other runs K that the level is the mean of; 0 where it is the participant's own.
        """
        share = (1 - 1 / n_seen) ** 0.5 if n_seen else 1.0
        return float(
            torch.exp(self.run_spread.cpu() * share * torch.randn((), generator=generator))
        )

    def of_voxels(self, noise_sd: np.ndarray) -> np.ndarray:
        """Compute the level of a run at each voxel.

        Parameters
        ----------
        noise_sd : ndarray of shape (X, Y, Z)
            Temporal standard deviation (%) of the run's noise; 0 where the run has no brain.

        Returns
        -------
        ndarray of shape (X, Y, Z)
            Ratio to the typical run, smooth, 1 outside of the brain.
        """
        typical = self.typical_sd.cpu().numpy()
        if not self.enabled:
            return np.ones_like(typical)
        known = self.brain & (noise_sd > 0) & (typical > 0)
        if not known.any():
            return np.ones_like(typical)
        ratio = np.zeros_like(typical)
        ratio[known] = np.log(noise_sd[known] / typical[known])
        # normalised convolution: what lies outside of the brain has no say
        weight = gaussian_filter(known.astype(np.float32), self.sigma, mode="constant")
        smooth = gaussian_filter(ratio, self.sigma, mode="constant") / np.maximum(weight, 1e-3)
        smooth = np.where(weight > 1e-3, smooth, np.median(ratio[known]))
        level = np.exp(np.clip(smooth, -np.log(RANGE), np.log(RANGE)))
        return np.where(self.brain, level, 1).astype(np.float32)

    def of_latents(self, noise_sd: np.ndarray) -> Tensor:
        """Compute the level of a run at each latent voxel, (x, y, z) float32."""
        level, f = np.log(self.of_voxels(noise_sd)), self.factor
        x, y, z = (n // f for n in level.shape)

        def blocks(values: np.ndarray) -> np.ndarray:
            folded: np.ndarray = values.reshape(x, f, y, f, z, f).sum((1, 3, 5))
            return folded

        inside = blocks(self.brain.astype(np.float32))
        mean = blocks(level * self.brain) / np.maximum(inside, 1)
        return torch.from_numpy(np.exp(mean).astype(np.float32)).to(self.typical_sd.device)
