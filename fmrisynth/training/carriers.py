"""Learn how participants' carriers differ: mean image, noise level, size of the drift.

Legend: S participants, X Y Z model grid, P voxels of the brain, Q components.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from fmrisynth.model.carriers import COMPONENTS, MINIMUM_PARTICIPANTS, CarrierPrior
from fmrisynth.preprocess.run_maps import MapsOfRuns, median_map
from fmrisynth.preprocess.smoothness import fwhm_of_correlation, neighbours
from fmrisynth.training.prepare import TrainingData

__all__ = ["fit_carriers"]

IMAGE_CEILING, NOISE_FLOOR = 3.0, 0.01  # of the median: vessels are no anatomy; and %

log = logging.getLogger(__name__)


def fit_carriers(data: TrainingData) -> CarrierPrior:
    """Fit mean, components and residual of mean image and logarithm of the noise level.

    No more components are kept than a third of the participants, so that none is the image of
    one of them; what they leave is measured on participants who were left out.
    """
    prior, inside = CarrierPrior(data.grid.shape), data.grid.mask
    images, known = _images(data)
    count = len(images)
    if count < MINIMUM_PARTICIPANTS:
        log.info("carriers are not learned: %d participants are too few to hide in", count)
        return prior
    n_components = min(COMPONENTS, count // 3)
    flat = images.reshape(count, -1)
    prior.mean[:, inside] = torch.from_numpy(images.mean(0)).float()
    weights, rest = [], []
    for out in range(count):
        others = np.delete(flat, out, axis=0)
        axes = _axes(others, n_components)
        deviation = flat[out] - others.mean(0)
        weights.append(deviation @ axes.T)
        rest.append(deviation - weights[-1] @ axes)
    # components fit those whom they were computed from too well: others vary less along them
    components = _axes(flat, n_components) * np.sqrt(np.square(weights).mean(0))[:, None]
    prior.components[:n_components, :, inside] = (
        torch.from_numpy(components).float().view(n_components, 2, -1)
    )
    residual = np.stack(rest).reshape(count, 2, -1)
    edge = float(np.linalg.norm(data.grid.affine[:3, 0]))
    for kind in range(2):
        sd = np.sqrt(np.square(residual[:, kind]).sum(0) / np.maximum(known[:, kind].sum(0), 1))
        prior.residual_sd[kind, inside] = torch.from_numpy(sd).float()
        prior.residual_fwhm[kind] = _smoothness(residual[:, kind], inside, edge)
    prior.drift_sd.copy_(torch.from_numpy(median_map(MapsOfRuns(data.runs, "drift_sd"))))
    prior.present.fill_(True)
    log.info(
        "carriers: %d components hold %.2f of the variance between participants",
        n_components,
        np.square(components).sum() / max(flat.var(0, ddof=1).sum(), 1e-12),
    )
    return prior


def _images(data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """Average mean image and logarithm of the noise level over each participant's runs.

    Returns
    -------
    images, known : ndarray of shape (S, 2, P)
        Outside of a participant's brain there is no noise level, which is not one of zero: the
        others' mean stands for it, and `known` is False.
    """
    inside = data.grid.mask
    by_participant: dict[str, list[np.ndarray]] = {}
    for run in data.runs:
        noise_sd = run.noise_sd[inside]
        level = np.where(noise_sd > 0, np.log(np.maximum(noise_sd, NOISE_FLOOR)), np.nan)
        values = (np.clip(run.mean[inside], 0, IMAGE_CEILING), level)
        by_participant.setdefault(run.run.participant, []).append(np.stack(values))
    images = np.stack([_known_mean(by_participant[p]) for p in sorted(by_participant)])
    known = np.isfinite(images)
    typical = np.nan_to_num(_known_mean(images), nan=float(np.nanmedian(images[:, 1])))
    return np.where(known, images, typical), known


def _known_mean(arrays: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Average arrays over the values that are known; NaN where none is."""
    stacked = np.asarray(arrays)
    known = np.isfinite(stacked)
    total, number = np.where(known, stacked, 0).sum(0), known.sum(0)
    mean: np.ndarray = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return mean


def _axes(flat: np.ndarray, count: int) -> np.ndarray:
    """Compute principal axes, (Q, 2·P)."""
    axes: np.ndarray = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:count]
    return axes


def _smoothness(residual: np.ndarray, inside: np.ndarray, edge: float) -> float:
    """Estimate the FWHM (mm) of fields (S, P) from the correlation of neighbours."""
    products = sizes = 0.0
    for axis in range(3):
        near, far = neighbours(inside, axis)
        products += float((residual[:, near] * residual[:, far]).mean())
        sizes += float(np.square(residual).mean())
    correlation = float(np.clip(products / max(sizes, 1e-12), 0.01, 0.99))
    return fwhm_of_correlation(correlation, edge)
