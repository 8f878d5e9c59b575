"""Collect the sufficient statistics of the training runs, participant by participant.

Legend: N frames, K regressors (V trial types × HRF and derivative), C channels, P latent voxels
of the brain, D = C·P.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmrisynth.model.individual_differences import split_halves
from fmrisynth.model.noise.autocovariance import shrink_autocovariance
from fmrisynth.model.run_statistics import draw_evoked, draw_products, whiten
from fmrisynth.runtime.progress import track
from fmrisynth.runtime.stored_rows import StoredRows
from fmrisynth.training.prepare import TrainingData, sample_runs
from fmrisynth.training.whitening import Whitening
from fmrisynth.training.windows import LatentRuns

__all__ = ["ResponseStatistics", "collect_statistics", "residual_autocovariance"]

ORDER = 8  # lags of the residuals' autocovariance
DRAWING = 2  # key of the random numbers
ROUNDS = 3  # of estimating the autocovariance, the last of which changes little


@dataclass(frozen=True)
class ResponseStatistics:
    """Hold the sufficient statistics of every training participant.

    Attributes
    ----------
    participants : tuple of str
        Labels, sorted.
    moments : ndarray of shape (S, 2, K, K)
        XᵀV⁻¹X / level² of S participants, in either half of the participant's data.
    products : StoredRows of shape (S, 2, K, D)
        XᵀV⁻¹Z / level².
    drawn : StoredRows of shape (S, K, D)
        Products of noise that is like each watched participant's own
        (`fmrisynth.model.run_statistics.draw_products`); those of others are zero.
    autocovariance : ndarray of shape (ORDER + 1,)
        Of the noise over frames, which V has.
    whitening : Whitening
        Of the noise over latent values.
    """

    participants: tuple[str, ...]
    moments: np.ndarray
    products: StoredRows
    drawn: StoredRows
    autocovariance: np.ndarray
    whitening: Whitening

    def total(self, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Add up the statistics of some participants, (K, K) and (K, D) float64."""
        products = np.zeros(self.products.shape[2:])
        for index in chosen:
            products += self.products[index].sum(0, dtype=np.float64)
        return self.moments[list(chosen)].sum((0, 1)), products

    def whitened_total(self, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Add up the statistics of some participants, with latent values whitened."""
        moments, products = self.total(chosen)
        return moments, self.whitening.whiten(products)


def residual_autocovariance(runs: LatentRuns, seed: int) -> np.ndarray:
    """Estimate the autocovariance of the noise, pooled over latents, (ORDER + 1,).

    What a GLM leaves has nothing along the regressors, which are slow: the noise would seem
    faster than it is. That part is drawn, first as white noise and then as the last round found.
    """
    lags = np.eye(ORDER + 1)[0]
    for _ in range(ROUNDS):
        totals = np.zeros(ORDER + 1)
        for index in sample_runs(len(runs), seed):
            z, rng = runs.standardised(index), np.random.default_rng([seed, DRAWING, index])
            rest = z - draw_evoked(runs.regressors(index), z, lags, rng)
            totals += [np.vdot(rest[lag:], rest[: len(rest) - lag]) for lag in range(ORDER + 1)]
        lags = shrink_autocovariance(totals / totals[0])
    return lags


def collect_statistics(
    runs: LatentRuns, data: TrainingData, seed: int, folder: Path, watched: Collection[str] = ()
) -> ResponseStatistics:
    """Pass once over the training runs.

    Parameters
    ----------
    runs : LatentRuns
        Standardised latents with their noise levels.
    data : TrainingData
        Participants of the runs.
    seed : int
        Seed of the choice of runs that the autocovariance is estimated from, and of what is drawn.
    folder : pathlib.Path
        Gets the products, which may be larger than memory.
    watched : collection of str
        Participants whose own products of noise are drawn.
    """
    lags = residual_autocovariance(runs, seed)

    labels = tuple(sorted(set(data.participants)))
    n_regressors = 2 * len(data.vocabulary.trial_types)
    shape = (len(labels), 2, n_regressors, n_regressors)
    moments = np.zeros(shape)
    size = runs.n_values
    products = StoredRows(folder, (len(labels), 2, n_regressors, size))
    drawn = StoredRows(folder, (len(labels), n_regressors, size))
    parts = _halves(data)
    for index in track(range(len(runs)), desc="Responses", unit="run"):
        who = labels.index(data.participants[index])
        x, z = whiten(lags, runs.regressors(index), runs.standardised(index))
        power = float(runs.levels[index][runs.mask].square().mean())
        own = products[who]
        for half, frames in parts[index]:
            chosen = slice(None) if frames is None else np.array_split(np.arange(len(x)), 2)[frames]
            moments[who, half] += x[chosen].T @ x[chosen] / power
            own[half] += (x[chosen].T @ z[chosen] / power).astype(np.float32)
        products[who] = own
        if labels[who] in watched:
            rng = np.random.default_rng([seed, DRAWING, index])
            drawn[who] = drawn[who] + (draw_products(x, z, rng) / power).astype(np.float32)
    whitening = Whitening.fit(runs, lags, seed)
    return ResponseStatistics(labels, moments, products, drawn, lags, whitening)


def _halves(data: TrainingData) -> list[list[tuple[int, int | None]]]:
    """Assign each run to a half of its participant's data, or its frames to both halves.

    Runs of one task alternate; the only run of a task is cut in two.

    Returns
    -------
    list of list of (half, part)
        Part of the run's frames: 0 or 1, or None for all.
    """
    runs: dict[tuple[str, str], list[int]] = {}
    for index, run in enumerate(data.runs):
        runs.setdefault((run.run.participant, run.run.task), []).append(index)
    parts: list[list[tuple[int, int | None]]] = [[] for _ in data.runs]
    for indices in runs.values():
        if len(indices) == 1:
            parts[indices[0]] = [(0, 0), (1, 1)]
            continue
        for half, chosen in enumerate(split_halves(indices)):
            for index in chosen:
                parts[index] = [(half, None)]
    return parts
