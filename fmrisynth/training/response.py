"""Fit the response model: a shrunk group GLM, and a network for individual differences.

Both are fitted to sufficient statistics (`fmrisynth.training.response_statistics`), so that
every frame of every participant counts in every step. What is shrunk, and for how long and
how far the network is trained, is decided by participants who were left out.

Legend: K regressors, J maps, D = C·P latent values, S participants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fmrisynth.config.diffusion import ResponseConfig
from fmrisynth.model.model import make_response
from fmrisynth.model.response import IndividualResponse, Response
from fmrisynth.runtime.stored_rows import StoredRows
from fmrisynth.training.individuals import MOST_PARTICIPANTS, fit_individuals
from fmrisynth.training.own_responses import RIDGE, drawn_responses, mean_images, own_responses
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.prepare import TrainingData, sample_runs
from fmrisynth.training.response_statistics import ResponseStatistics, collect_statistics
from fmrisynth.training.windows import LatentRuns

__all__ = ["fit_response"]

FOLDS = 4  # of the participants left out together
FULL_SHARE = 0.5  # of a component, from which on it is more truth than error
MINIMUM_PARTICIPANTS = 4  # fewer say nothing of individual differences
LEARNING_RATE, WEIGHT_DECAY, WATCH_EVERY = 3e-3, 1e-2, 10
ANATOMY_FLOOR = 1e-3
AT_ONCE = 64  # participants in one pass of the network

log = logging.getLogger(__name__)


def fit_response(
    runs: LatentRuns,
    data: TrainingData,
    plan: TrainingPlan,
    folder: Path,
    gradients: Callable[[Tensor], Tensor],
    watched: Collection[str] = (),
) -> tuple[Response, LatentRuns]:
    """Fit the response model, and every training participant's own response.

    Parameters
    ----------
    runs : LatentRuns
        The training runs.
    data : TrainingData
        Mean images, mask, vocabulary.
    plan : TrainingPlan
        Settings and seed.
    folder : pathlib.Path
        Gets the statistics, which may be larger than memory.
    gradients : callable
        Differentiates maps in space, as `fmrisynth.training.individuals.map_gradients` does.
    watched : collection of str
        Participants whom the denoiser is judged by, on runs without any response.

    Returns
    -------
    response : Response
        On the CPU.
    runs : LatentRuns
        With the participants' own responses, shrunk towards the model's prediction. Noise
        model and denoiser learn from what they leave, or they would take individual
        responses for noise. A denoiser without a response model has to learn them; its
        regression phase needs them all the same. Those of the watched are drawn as well
        (`drawn_responses`).
    """
    config = plan.config.response
    if not data.vocabulary.trial_types:  # no events, nothing evoked
        return make_response(plan.config, data.vocabulary, data.latent_mask), runs
    statistics = collect_statistics(runs, data, plan.seed, folder, watched)
    present = config.kind != "none"
    fitted = _fit(config if present else replace(config, kind="glm"), statistics, data)
    count = len(statistics.participants)
    chosen = sample_runs(count, plan.seed, MOST_PARTICIPANTS)
    predictions = dict.fromkeys(chosen, fitted.expectation(None))
    if fitted.individual is not None and count >= MINIMUM_PARTICIPANTS:
        predictions = _fit_individual(
            fitted, statistics, data, config.steps, plan.seed, chosen, folder
        )
    if not present:  # what the network learns is drawn as it is: of the size of true responses
        fitted.coefficients.mul_(fitted.restored)
    own = own_responses(fitted, statistics, data, folder)
    if not present:
        response = make_response(plan.config, data.vocabulary, data.latent_mask)
        return response, replace(runs, responses=own, removed=False)
    if config.individual_fields and len(own) >= MINIMUM_PARTICIPANTS:
        fit_individuals(fitted, statistics, predictions, runs, data, folder, gradients)
    drawn = drawn_responses(fitted, statistics, data, watched, folder)
    return fitted, replace(runs, responses=own, drawn=drawn)


def _fit(config: ResponseConfig, statistics: ResponseStatistics, data: TrainingData) -> Response:
    """Fit the group's response, on the CPU."""
    mask, settings = data.latent_mask, data.config.autoencoder
    response = Response(
        config, len(data.vocabulary.trial_types), settings.latent_channels, mask, settings.factor
    )
    everyone = range(len(statistics.participants))
    coefficients, maps = _reduced_rank(*statistics.whitened_total(everyone), config.rank)
    share = _reliable_share(statistics, config.rank)
    rank = len(maps)
    size = np.maximum(np.sqrt(np.square(coefficients).mean(0)), 1e-12)
    response.coefficients[..., :rank] = torch.from_numpy(
        (coefficients / size).reshape(-1, 2, rank)
    ).float()
    maps = statistics.whitening.colour(maps)
    scaled = torch.from_numpy(maps * (share[:rank] * size)[:, None]).float()
    response.maps[:rank, :, mask] = scaled.view(rank, settings.latent_channels, -1)
    # firm thresholding: what is more truth than error is drawn at the size that it was found at
    factor = np.where(share > 0, 1 / np.maximum(share, FULL_SHARE), 1.0)
    response.restored.copy_(torch.from_numpy(factor))
    log.info("components of the group response are shrunk to %s", np.round(share, 2).tolist())
    return response


def _reduced_rank(
    moments: np.ndarray, products: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a GLM of rank J (reduced-rank regression, Izenman 1975) to whitened products (K, D).

    Returns
    -------
    coefficients : ndarray of shape (K, J)
    maps : ndarray of shape (J, D)
    """
    ridge = RIDGE * moments.diagonal().mean() * np.eye(len(moments))
    factor = np.linalg.cholesky(moments + ridge)  # the fit is L⁻ᵀ L⁻¹ Xᵀ Z
    left, values, right = np.linalg.svd(np.linalg.solve(factor, products), full_matrices=False)
    rank = min(rank, len(values))
    return np.linalg.solve(factor.T, left[:, :rank]), values[:rank, None] * right[:rank]


def _folds(count: int) -> list[list[int]]:
    """Split participants, by number, into groups that are left out together."""
    n_folds = min(FOLDS, count)
    return [list(range(count))[k::n_folds] for k in range(n_folds)]


def _reliable_share(statistics: ResponseStatistics, rank: int) -> np.ndarray:
    """Find the factor on each component that predicts left-out participants best, (J,) in [0, 1].

    For component j of the others' fit, with β_j = coefficients × map, the error of left-out
    participants is least at <β_j, XᵀZ> / <β_j, XᵀX β_j>. A fit to everybody has less error than
    one to the others: shares S / (S + N) are those of N less by the ratio of their numbers.
    """
    count = len(statistics.participants)
    if count < 2:
        return np.ones(rank)
    gain, power = np.zeros(rank), np.full(rank, 1e-12)
    for out in _folds(count):
        others = [i for i in range(count) if i not in out]
        if not others:
            continue
        coefficients, maps = _reduced_rank(*statistics.whitened_total(others), rank)
        moments, products = statistics.whitened_total(out)
        for j in range(len(maps)):
            gain[j] += coefficients[:, j] @ products @ maps[j]
            power[j] += (coefficients[:, j] @ moments @ coefficients[:, j]) * (maps[j] @ maps[j])
    share = np.clip(gain / power, 0, 1)
    ratio = 1 - 1 / len(_folds(count))
    return share / (share + ratio * (1 - share))


class _Reduced:
    """Reduce the participants' statistics to the space of the group maps' coefficients.

    Attributes
    ----------
    moments : Tensor of shape (S, J, J)
    targets : StoredRows of shape (S, J, C, P)
        What is left of the products once the group response is taken out.
    """

    def __init__(
        self, response: Response, statistics: ResponseStatistics, mask: Tensor, folder: Path
    ) -> None:
        coefficients = response.coefficients.flatten(0, 1).double().numpy()  # K J
        maps = response.maps[..., mask]  # J C P
        total = statistics.moments.sum(1)
        self.moments = torch.from_numpy(
            np.einsum("kj,skl,lm->sjm", coefficients, total, coefficients)
        ).float()
        self.targets = StoredRows(folder, (len(self.moments), *maps.shape))
        for s, moments in enumerate(self.moments):
            products = coefficients.T @ statistics.products[s].sum(0, dtype=np.float64)
            rest = torch.from_numpy(products).float().view(maps.shape)
            rest -= torch.einsum("jm,mcp->jcp", moments, maps)
            self.targets[s] = rest.numpy()

    def parts(self, deviation: Tensor, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return <h, target> and <h, M h> of deviations h (S', J, C, P), per participant."""
        index = list(chosen)
        power = torch.einsum("sjm,smcp->sjcp", self.moments[index], deviation)
        gain = (deviation * torch.from_numpy(self.targets.take(index))).sum((1, 2, 3))
        return gain, (deviation * power).sum((1, 2, 3))


def _features(
    network: IndividualResponse, participants: Sequence[str], data: TrainingData, folder: Path
) -> StoredRows:
    """Set what the network takes mean images to deviate from; return the deviations, by row."""
    count = len(participants)
    total, squares = torch.zeros(()).double(), torch.zeros(()).double()
    for mean in mean_images(participants, data):
        total = total + network.fold(mean[None])[0].double()
    average = total / count
    for mean in mean_images(participants, data):
        squares = squares + (network.fold(mean[None])[0] - average).square()
    network.anatomy_mean.copy_(average)
    spread = (squares / (count - 1)).sqrt()[:, network.mask]
    network.anatomy_sd.fill_(max(float(spread.mean()), ANATOMY_FLOOR))
    features = StoredRows(folder, (count, *average.shape))
    for s, mean in enumerate(mean_images(participants, data)):
        features[s] = network.standardise(mean[None])[0].numpy()
    return features


def _fit_individual(
    response: Response,
    statistics: ResponseStatistics,
    data: TrainingData,
    steps: int,
    seed: int,
    chosen: Sequence[int],
    folder: Path,
) -> dict[int, Tensor]:
    """Train the network of individual differences; steps and amplitude by left-out participants.

    Returns
    -------
    dict of int to Tensor of shape (V, 2, C, x, y, z)
        What is predicted for each chosen participant by a network that has not learned from it:
        the individual differences that anatomy does not foretell are what such predictions leave.
    """
    network = response.individual
    assert network is not None
    features = _features(network, statistics.participants, data, folder)
    reduced = _Reduced(response, statistics, network.mask, folder)
    count = len(features)
    gains, powers = np.zeros(1), np.zeros(1)
    for out in _folds(count):
        others = [i for i in range(count) if i not in out]
        course = _train(response, features, reduced, others, steps, seed, watched=out)
        gains, powers = gains + course[0], powers + course[1]
    amplitude = (gains / np.maximum(powers, 1e-12)).clip(0, 1)
    reduction = 2 * amplitude * gains - amplitude**2 * powers
    best = int(np.argmax(reduction))
    network.amplitude.fill_(float(amplitude[best]) if best > 0 else 0.0)
    predictions: dict[int, Tensor] = {}
    for out in _folds(count):
        others = [i for i in range(count) if i not in out]
        _train(response, features, reduced, others, best * WATCH_EVERY, seed)
        with torch.no_grad():
            labels = {i: statistics.participants[i] for i in out if i in chosen}
            means = mean_images(list(labels.values()), data)
            predictions |= dict(zip(labels, map(response.expectation, means), strict=True))
    _train(response, features, reduced, range(count), best * WATCH_EVERY, seed)
    log.info(
        "individual responses from anatomy: %d steps, amplitude %.2f",
        best * WATCH_EVERY,
        float(network.amplitude),
    )
    return dict(sorted(predictions.items()))


def _train(
    response: Response,
    features: StoredRows,
    reduced: _Reduced,
    learners: Sequence[int],
    steps: int,
    seed: int,
    watched: Sequence[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Train the network on all statistics of some participants in each step, from its start.

    Gradients are summed over some at a time: the memory of a pass does not grow with their number.

    Returns
    -------
    gains, powers : ndarray of shape (steps // WATCH_EVERY + 1,)
        <h, target> and <h, M h> of the watched participants along the way.
    """
    network, index = response.individual, list(learners)
    assert network is not None
    mask = network.mask
    network.start(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    scale = reduced.moments[index].diagonal(dim1=1, dim2=2).sum() * response.maps.square().mean()
    scale = scale * mask.numel() + 1e-12
    course = []

    def gain_and_power(some: Tensor) -> tuple[Tensor, Tensor]:
        index = some.tolist()
        shown = torch.from_numpy(features.take(index))
        return reduced.parts(network(shown, response.maps)[..., mask], index)

    for step in range(steps + 1):
        if watched and step % WATCH_EVERY == 0:
            with torch.no_grad():
                shown = map(gain_and_power, torch.tensor(watched).split(AT_ONCE))
                course.append(np.sum([torch.stack(pair).sum(1).numpy() for pair in shown], axis=0))
        if step == steps:
            break
        optimizer.zero_grad(set_to_none=True)
        for some in torch.tensor(index).split(AT_ONCE):
            gain, power = gain_and_power(some)
            ((power - 2 * gain).sum() / scale).backward()
        optimizer.step()
    table = np.array(course).reshape(-1, 2)
    return table[:, 0], table[:, 1]
