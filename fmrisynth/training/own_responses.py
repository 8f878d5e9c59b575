"""Estimate the training participants' own responses, from what their runs say of them.

Legend: K regressors, J maps, D = C·P latent values, S participants.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.response import Response
from fmrisynth.preprocess.cache import RunData
from fmrisynth.runtime.stored_rows import NamedRows, StoredRows
from fmrisynth.training.prepare import TrainingData
from fmrisynth.training.response_statistics import ResponseStatistics

__all__ = ["RIDGE", "drawn_responses", "mean_images", "own_responses"]

RIDGE = 1e-3  # of the regressors' mean square, for what no run has enough of
OWN_RIDGE = 1e-1  # the same, for the best fit of one participant

log = logging.getLogger(__name__)


def mean_images(participants: Sequence[str], data: TrainingData) -> Iterator[Tensor]:
    """Yield the mean image, averaged over the runs, of each participant, (X, Y, Z)."""
    runs: dict[str, list[RunData]] = {}
    for run in data.runs:
        runs.setdefault(run.run.participant, []).append(run)
    for participant in participants:
        images = [run.mean for run in runs[participant]]
        yield torch.from_numpy(np.mean(images, axis=0)).float()


def _predictions(
    response: Response, participants: Sequence[str], data: TrainingData
) -> Iterator[np.ndarray]:
    """Yield what the model expects of participants' coefficients, (K, D) float64."""
    mask = data.latent_mask
    coefficients = response.coefficients.flatten(0, 1)  # K J
    for mean in mean_images(participants, data):
        with torch.no_grad():
            maps = response.maps_of(mean)[..., mask].flatten(1)
        yield (coefficients @ maps).double().numpy()


def _own_fit(moments: np.ndarray, rest: np.ndarray, ridge: float) -> np.ndarray:
    """Fit one participant's coefficients to XᵀZ by ridge regression."""
    penalty = ridge * max(moments.diagonal().mean(), 1e-12) * np.eye(len(moments))
    return np.linalg.solve(moments + penalty, rest)


def drawn_responses(
    response: Response,
    statistics: ResponseStatistics,
    data: TrainingData,
    watched: Collection[str],
    folder: Path,
) -> Mapping[str, np.ndarray]:
    """Draw the watched participants' own responses from what the participants' runs say of them.

    What it leaves of the runs is a sample of the noise (`fmrisynth.model.run_statistics`).

    Parameters
    ----------
    response : Response
        Its prediction stands in for what no run says.
    statistics : ResponseStatistics
        Of all runs.
    data : TrainingData
        Mean images and mask.
    watched : collection of str
        Participants whose noise was drawn, too.
    folder : pathlib.Path
        Gets the responses.

    Returns
    -------
    mapping of str to ndarray of shape (K, D)
        float32 coefficients of the regressors, by watched participant.
    """
    labels = statistics.participants
    chosen = [s for s, label in enumerate(labels) if label in watched]
    own = StoredRows(folder, (len(chosen), *statistics.drawn.shape[1:]))
    predictions = _predictions(response, [labels[s] for s in chosen], data)
    for row, (s, prediction) in enumerate(zip(chosen, predictions, strict=True)):
        moments, products = statistics.total([s])
        rest = products + statistics.drawn[s] - moments @ prediction
        own[row] = prediction + _own_fit(moments, rest, RIDGE)
    return NamedRows([labels[s] for s in chosen], own)


def own_responses(
    response: Response, statistics: ResponseStatistics, data: TrainingData, folder: Path
) -> Mapping[str, np.ndarray]:
    """Estimate each training participant's own response, shrunk towards the model's prediction.

    Parameters
    ----------
    response, statistics, data, folder
        As for `drawn_responses`.

    Returns
    -------
    mapping of str to ndarray of shape (K, D)
        float32 coefficients of the regressors, by participant.
    """
    shape = statistics.drawn.shape
    own, fits = StoredRows(folder, shape), StoredRows(folder, shape)
    sums = np.zeros(2, np.float32)  # agreement of the halves, size
    for s, prediction in enumerate(_predictions(response, statistics.participants, data)):
        one, other = (
            _own_fit(moments, products - moments @ prediction, OWN_RIDGE).astype(np.float32)
            for moments, products in zip(statistics.moments[s], statistics.products[s], strict=True)
        )
        own[s], fits[s] = prediction, np.stack([one, other]).mean(0)
        sums += np.vdot(one, other), np.square(fits[s]).sum()
    share = float(np.clip(sums[0] / max(sums[1], 1e-12), 0, 1))
    log.info("%.2f of the variance of participants' own responses is reliable", share)
    for s in range(len(own)):
        own[s] = own[s] + share * fits[s]
    return NamedRows(statistics.participants, own)
