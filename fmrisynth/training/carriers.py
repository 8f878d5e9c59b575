"""Learn how participants' carriers differ: mean image, noise level, size of the drift.

Legend: S participants, X Y Z model grid, P voxels of the brain, Q components.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import eigh

from fmrisynth.model.carriers import COMPONENTS, MINIMUM_PARTICIPANTS, CarrierPrior
from fmrisynth.preprocess.run_maps import MapsOfRuns, median_map
from fmrisynth.preprocess.smoothness import fwhm_of_correlation, neighbours
from fmrisynth.training.prepare import TrainingData, sample_runs

__all__ = ["fit_carriers"]

MOST_PARTICIPANTS = 256  # whom images are read of
LEAST_POWER = 1e-12  # of an axis, over that of the first: less is rounding
IMAGE_CEILING, NOISE_FLOOR = 3.0, 0.01  # of the median: vessels are no anatomy; and %

log = logging.getLogger(__name__)


def fit_carriers(data: TrainingData, seed: int) -> CarrierPrior:
    """Fit mean, components and residual of mean image and logarithm of the noise level.

    No more components are kept than a third of the participants, so that none is the image of
    one of them; what they leave is measured on participants who were left out.

    Parameters
    ----------
    data : TrainingData
        The training runs.
    seed : int
        Seed of the choice of participants, where there are more than are needed.
    """
    prior, inside = CarrierPrior(data.grid.shape), data.grid.mask
    images, known = _images(data, seed)
    count = len(images)
    if count < MINIMUM_PARTICIPANTS:
        log.info("carriers are not learned: %d participants are too few to hide in", count)
        return prior
    n_components = min(COMPONENTS, count // 3)
    flat = images.reshape(count, -1)
    prior.mean[:, inside] = torch.from_numpy(images.mean(0)).float()
    weights, rest = _left_out(flat, n_components)
    # components fit those whom they were computed from too well: others vary less along them
    components = _axes(flat, n_components) * np.sqrt(np.square(weights).mean(0))[:, None]
    prior.components[:n_components, :, inside] = (
        torch.from_numpy(components).float().view(n_components, 2, -1)
    )
    residual = rest.reshape(count, 2, -1)
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


def _images(data: TrainingData, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Average mean image and logarithm of the noise level over the runs of each of S participants.

    Returns
    -------
    images, known : ndarray of shape (S, 2, P)
        Outside of a participant's brain there is no noise level, which is not one of zero: the
        others' mean stands for it, and `known` is False.
    """
    inside = data.grid.mask
    labels = sorted({run.run.participant for run in data.runs})
    chosen = {labels[i] for i in sample_runs(len(labels), seed, MOST_PARTICIPANTS)}
    by_participant: dict[str, list[np.ndarray]] = {}
    for run in data.runs:
        if run.run.participant not in chosen:
            continue
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


def _left_out(flat: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Express each row as the others' mean, their principal axes, and a rest.

    The axes are those of the rows' products with each other, which are computed once.

    Returns
    -------
    weights : ndarray of shape (S, Q)
        Along the axes of the others.
    rest : ndarray of shape (S, 2·P)
    """
    centred = flat - flat.mean(0)
    products = centred @ centred.T
    weights, rest = np.zeros((len(flat), count)), np.empty_like(centred)
    shift = 1 / (len(flat) - 1)  # the others' mean is −shift times the row that is left out
    for out, own in enumerate(centred):
        others = np.arange(len(flat)) != out
        cross, power = products[others, out], products[out, out]
        inner = products[np.ix_(others, others)] + shift * (cross[:, None] + cross)
        values, vectors = eigh(
            inner + shift**2 * power, subset_by_index=(len(cross) - count, len(cross) - 1)
        )
        values, vectors = values[::-1], vectors[:, ::-1]
        scaled = vectors * np.where(values > LEAST_POWER * values[0], values, np.inf) ** -0.5
        weights[out] = (1 + shift) * (cross + shift * power) @ scaled
        mixed = np.zeros(len(flat))
        mixed[others] = scaled @ weights[out]
        rest[out] = (1 + shift - shift * mixed.sum()) * own - mixed @ centred
    return weights, rest


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
