"""Draw how the intensity of a run's noise changes from frame to frame.

Participants move, breathe and doze: in real runs the largest frame has three to twenty times
the energy of the median one, which no Gaussian noise has. Noise of unit variance is multiplied
by a course s(t),

    log s(t) = d · q(Φ(g(t))),

with g an autoregressive Gaussian process, q the quantile function of all training runs, each
of them scaled to unit variance, and d how restless the run is, which is log-normal over runs.

Legend: N frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import norm, rankdata
from torch import Tensor, nn

from fmrisynth.model.noise.autocovariance import factors_in_time, shrink_autocovariance

__all__ = ["FrameIntensity"]

QUANTILES, ORDER = 129, 8
AGREEMENT_RUNS, AGREEMENT_FRAMES = 128, 256
LARGEST = 3.0  # of log s: a frame of 20 times the standard deviation is an artefact


class FrameIntensity(nn.Module):
    """Hold the distribution of frame-wise noise intensities; at first, intensities of 1.

    Attributes
    ----------
    quantiles : Tensor of shape (QUANTILES,)
        q, equally spaced in probability, of zero mean and unit variance.
    autocorrelation : Tensor of shape (ORDER + 1,)
        Of g.
    restlessness : Tensor of shape (2,)
        Mean and standard deviation of log d over runs.
    chance : Tensor of shape ()
        Variance of log s that Gaussian noise of the model has by itself.
    """

    quantiles: Tensor
    autocorrelation: Tensor
    restlessness: Tensor
    chance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("quantiles", torch.zeros(QUANTILES))
        start = torch.zeros(ORDER + 1)
        start[0] = 1.0
        self.register_buffer("autocorrelation", start)
        self.register_buffer("restlessness", torch.zeros(2))
        self.register_buffer("chance", torch.zeros(()))

    def of_run(self, log_energy: np.ndarray) -> Tensor:
        """Estimate the intensities of a run from half the log of its frames' mean square.

        Parameters
        ----------
        log_energy : ndarray of shape (N,)
            Of latents without response and level.

        Returns
        -------
        Tensor of shape (N,)
            float32, of mean square 1: what exceeds the chance of Gaussian noise.
        """
        intensity = torch.from_numpy(np.exp(self.shrink(log_energy))).float()
        return intensity / intensity.square().mean().sqrt()

    def shrink(self, log_energy: np.ndarray) -> np.ndarray:
        """Shrink log s (N,) by the share of its variance that is not chance."""
        centred = log_energy - log_energy.mean()
        share = max(0.0, 1 - float(self.chance) / max(float(log_energy.var()), 1e-12))
        shrunk: np.ndarray = share**0.5 * centred
        return shrunk

    def fit(self, courses: Sequence[np.ndarray]) -> FrameIntensity:
        """Estimate the distribution from courses log s(t), (N,) each, of the training runs."""
        spread = np.array([course.std() for course in courses])
        restless = spread > 1e-3
        if not restless.any():
            return self
        scaled = [(c - c.mean()) / s for c, s in zip(courses, spread, strict=True) if s > 1e-3]
        pooled = np.concatenate(scaled)
        middle = (np.arange(QUANTILES) + 0.5) / QUANTILES
        self.quantiles.copy_(torch.from_numpy(np.quantile(pooled, middle)).float())
        lags = np.zeros(ORDER + 1)
        for course in scaled:
            score = ndtri(rankdata(course) / (len(course) + 1))
            lags += [np.dot(score[k:], score[: len(score) - k]) for k in range(ORDER + 1)]
        lags = shrink_autocovariance(lags / lags[0])
        self.autocorrelation.copy_(torch.from_numpy(lags).float())
        log_d = np.log(spread[restless])
        self.restlessness.copy_(torch.tensor([log_d.mean(), log_d.std()]).float())
        return self

    def sample(self, n_frames: int, generator: torch.Generator) -> Tensor:
        """Draw the intensities of a run, (N,) float32 on the CPU, of mean square 1.

        Parameters
        ----------
        n_frames : int
            Frames N.
        generator : torch.Generator
            On the CPU.
        """
        factor = factors_in_time(self.autocorrelation[None], n_frames)[0]
        score = factor @ torch.randn(n_frames, generator=generator)
        draw = float(torch.randn((), generator=generator))
        middle = (np.arange(QUANTILES) + 0.5) / QUANTILES
        course = np.interp(norm.cdf(score.numpy()), middle, self.quantiles.cpu().numpy())
        mean, sd = self.restlessness.tolist()
        course = np.clip(np.exp(mean + sd * draw) * course, -LARGEST, LARGEST)
        intensity = torch.from_numpy(np.exp(course)).float()
        return intensity / intensity.square().mean().sqrt()

    def agreement(self, n_lags: int) -> Tensor:
        """Compute the mean product of the intensities of frames at each lag, (L,), 1 at lag 0.

        Noise that is multiplied by intensities has its autocovariance multiplied by this.

        Parameters
        ----------
        n_lags : int
            L.
        """
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros(n_lags)
        for _ in range(AGREEMENT_RUNS):
            course = self.sample(AGREEMENT_FRAMES, generator)
            total += torch.stack(
                [(course[k:] * course[: len(course) - k]).mean() for k in range(n_lags)]
            )
        return total / total[0]
