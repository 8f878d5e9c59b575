"""Whiten latents in space, so that responses are told from noise where the noise is weak.

The noise of a few large networks is a hundred times as strong as that of other patterns. The
least-squares fit of a GLM is the same in any metric, but what is kept of it and what is shrunk
is not: the components of the fit that vary most are mostly noise, those that vary most relative
to the noise are responses (Izenman 1975 weights reduced-rank regression by Σ^(−1/2)).

Legend: N frames, D latent values of a frame inside the brain, L modes.
"""

from __future__ import annotations

import numpy as np

from fmrisynth.model.individuals import NOISE_MODES
from fmrisynth.model.run_statistics import whiten
from fmrisynth.preprocess.carrier import least_squares
from fmrisynth.training.prepare import sample_runs
from fmrisynth.training.windows import LatentRuns

__all__ = ["Whitening"]

FRAMES = 2048  # that the noise is estimated from, at most
VARIANCE_FLOOR = 0.1  # of a latent value's variance, which no mode explains


class Whitening:
    """Multiply by Σ^(−1/2) or Σ^(1/2), with Σ = modesᵀ · modes + diag(variance).

    Parameters
    ----------
    modes : ndarray of shape (L, D)
    variance : ndarray of shape (D,)
    """

    def __init__(self, modes: np.ndarray, variance: np.ndarray) -> None:
        self.modes, self.variance, self._sd = modes, variance, np.sqrt(variance)
        # Σ = S (1 + Aᵀ A) S with S the diagonal: its symmetric roots are in the span of A
        _, values, self._axes = np.linalg.svd(modes / self._sd, full_matrices=False)
        self._scale = np.sqrt(1 + np.square(values))

    @classmethod
    def fit(cls, runs: LatentRuns, autocovariance: np.ndarray, seed: int) -> Whitening:
        """Fit a factor model to what the GLM leaves of some frames, whitened over time.

        Parameters
        ----------
        runs : LatentRuns
            The training runs.
        autocovariance : ndarray of shape (ORDER + 1,)
            Of the noise over frames.
        seed : int
            Seed of the choice of runs.
        """
        chosen, frames = sample_runs(len(runs), seed), []
        for index in chosen:
            z, x = runs.standardised(index), runs.regressors(index)
            rest, used = least_squares(*whiten(autocovariance, x, z))
            level = runs.levels[index][runs.mask].square().mean().sqrt()
            rest = rest * (len(rest) / max(1, len(rest) - used)) ** 0.5 / float(level)
            frames.append(rest[:: -(-len(rest) * len(chosen) // FRAMES)])
        sample = np.concatenate(frames).astype(np.float64)
        _, sizes, axes = np.linalg.svd(sample / len(sample) ** 0.5, full_matrices=False)
        count = min(NOISE_MODES, len(sizes) - 1)
        floor = np.square(sizes[count:]).sum() / max(1, sample.shape[1] - count)
        modes = axes[:count] * np.sqrt(np.maximum(np.square(sizes[:count, None]) - floor, 0))
        variance = np.square(sample).mean(0)
        rest_variance = np.maximum(
            variance - np.square(modes).sum(0), np.maximum(VARIANCE_FLOOR * variance, 1e-6)
        )
        return cls(modes, rest_variance)

    def whiten(self, values: np.ndarray) -> np.ndarray:
        """Multiply rows (…, D) by S⁻¹ (1 + AᵀA)^(−1/2): noise of covariance Σ becomes white."""
        scaled = values / self._sd
        return scaled + (scaled @ self._axes.T * (1 / self._scale - 1)) @ self._axes

    def colour(self, values: np.ndarray) -> np.ndarray:
        """Multiply rows (…, D) by the inverse of `whiten`."""
        scaled = values + (values @ self._axes.T * (self._scale - 1)) @ self._axes
        return scaled * self._sd
