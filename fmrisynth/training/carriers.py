"""Learn how participants' carriers differ: mean image, noise level, size of the drift.

Legend: S participants, X Y Z model grid, P voxels of the brain, Q components.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from fmrisynth.model.carriers import COMPONENTS, CarrierPrior
from fmrisynth.training.prepare import TrainingData

__all__ = ["fit_carriers"]

MINIMUM_PARTICIPANTS = 6  # a mean of fewer images would show the people in it
IMAGE_FLOOR, NOISE_FLOOR = 0.05, 0.01  # of the median, and %
SMOOTHNESS = 20.0  # mm FWHM of the map of what components leave
FWHM_PER_SIGMA = 2.3548

log = logging.getLogger(__name__)


def fit_carriers(data: TrainingData) -> CarrierPrior:
    """Fit mean, components and residual of the logarithms of mean image and noise level.

    No more components are kept than a third of the participants, so that none is the image of
    one of them; what they leave is measured on participants who were left out.
    """
    prior, inside = CarrierPrior(data.grid.shape), data.grid.mask
    logs = _logarithms(data)
    count = len(logs)
    if count < MINIMUM_PARTICIPANTS:
        log.info("carriers are not learned: %d participants are too few to hide in", count)
        return prior
    n_components = min(COMPONENTS, count // 3)
    flat = logs.reshape(count, -1)
    prior.mean[:, inside] = torch.from_numpy(logs.mean(0)).float()
    components = _components(flat, n_components)
    prior.components[:n_components, :, inside] = (
        torch.from_numpy(components).float().view(n_components, 2, -1)
    )
    rest = []
    for out in range(count):
        others = np.delete(flat, out, axis=0)
        axes = _components(others, n_components)
        axes = axes / np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-12)
        deviation = flat[out] - others.mean(0)
        rest.append(deviation - (deviation @ axes.T) @ axes)
    residual = np.stack(rest).reshape(count, 2, -1)
    edge = float(np.linalg.norm(data.grid.affine[:3, 0]))
    for kind in range(2):
        variance = np.square(residual[:, kind]).mean(0)
        prior.residual_sd[kind] = torch.from_numpy(_smooth(np.sqrt(variance), inside, edge)).float()
        prior.residual_fwhm[kind] = _smoothness(residual[:, kind], inside, edge)
    prior.drift_sd.copy_(torch.from_numpy(np.median([r.drift_sd for r in data.runs], axis=0)))
    prior.present.fill_(True)
    log.info(
        "carriers: %d components hold %.2f of the variance between participants",
        n_components,
        np.square(components).sum() / max(flat.var(0, ddof=1).sum(), 1e-12),
    )
    return prior


def _logarithms(data: TrainingData) -> np.ndarray:
    """Average the logarithms over the runs of each participant, (S, 2, P)."""
    inside = data.grid.mask
    by_participant: dict[str, list[np.ndarray]] = {}
    for run in data.runs:
        values = (
            np.log(np.maximum(run.mean[inside], IMAGE_FLOOR)),
            np.log(np.maximum(run.noise_sd[inside], NOISE_FLOOR)),
        )
        by_participant.setdefault(run.run.participant, []).append(np.stack(values))
    return np.stack([np.mean(by_participant[p], axis=0) for p in sorted(by_participant)])


def _components(flat: np.ndarray, count: int) -> np.ndarray:
    """Compute principal components times their standard deviation, (Q, 2·P)."""
    centred = (flat - flat.mean(0)) / max(1, len(flat) - 1) ** 0.5
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    components: np.ndarray = sizes[:count, None] * axes[:count]
    return components


def _smooth(values: np.ndarray, inside: np.ndarray, edge: float) -> np.ndarray:
    """Smooth a map inside the brain; where it has no voxel it is 0."""
    sigma = SMOOTHNESS / FWHM_PER_SIGMA / edge
    volume = np.zeros(inside.shape)
    volume[inside] = values
    weight = gaussian_filter(inside.astype(float), sigma)
    smooth: np.ndarray = gaussian_filter(volume, sigma) / np.maximum(weight, 1e-6) * inside
    return smooth


def _smoothness(residual: np.ndarray, inside: np.ndarray, edge: float) -> float:
    """Estimate the FWHM (mm) of fields (S, P) from the correlation of neighbours."""
    fields = np.zeros((len(residual), *inside.shape))
    fields[:, inside] = residual
    products = sizes = 0.0
    for axis in (1, 2, 3):
        both = np.take(fields, range(1, fields.shape[axis]), axis) * np.take(
            fields, range(fields.shape[axis] - 1), axis
        )
        pairs = np.take(inside, range(1, inside.shape[axis - 1]), axis - 1) & np.take(
            inside, range(inside.shape[axis - 1] - 1), axis - 1
        )
        products += float(both[:, pairs].mean())
        sizes += float(np.square(residual).mean())
    correlation = float(np.clip(products / max(sizes, 1e-12), 0.01, 0.99))
    return edge * float(np.sqrt(-2 * np.log(2) / np.log(correlation)))
