"""Fit the prior of the individual differences: how far, and how smoothly, participants differ.

The variances are those of greatest likelihood (by EM). How smooth the fields are, which of the
differences there are at all, and what counts as noise are chosen by cross-validation: with the
variances of one half of the participants, one half of the runs of each of the others is predicted
from the other half of its runs.

Legend: S participants, K regressors, J maps, B fields, C channels, P latent voxels of the brain,
D = C·P latent values, n parameters.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.model.codec import decode_run, encode_run
from fmrisynth.model.individuals import (
    FAMILIES,
    IndividualInference,
)
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.response import Response
from fmrisynth.preprocess.smoothness import FWHM_PER_SIGMA
from fmrisynth.runtime.stored_rows import StoredRows
from fmrisynth.training.prepare import TrainingData
from fmrisynth.training.response_statistics import ResponseStatistics
from fmrisynth.training.windows import LatentRuns

__all__ = ["MOST_PARTICIPANTS", "fit_individuals", "map_gradients", "smooth_fields"]

SMOOTHNESS = (40.0, 60.0, 90.0)  # mm FWHM of white noise smoothed to a field
NOISE_FACTORS = (1.0, 2.0, 4.0, 8.0)
START_SD = (0.25, 0.15, 0.3, 2.5)  # of `FAMILIES`: shares, s, mm
ITERATIONS = 6  # of EM
MOST_PARTICIPANTS = 48  # whom variances are estimated from
PRIOR_DRAWS = 32
RIDGE = 1e-3  # of the regressors' mean square
MAXIMUM_REMAINDER = 3.0  # of the prior's variance: what no field holds is known badly
LANDMARKS = 1500  # latent voxels that the fields are computed at

log = logging.getLogger(__name__)


def map_gradients(
    maps: Tensor, autoencoder: VQGAN, space: LatentSpace, data: TrainingData
) -> Tensor:
    """Differentiate maps along the axes of the model grid, where they are decoded to.

    Parameters
    ----------
    maps : Tensor of shape (J, C, x, y, z)
        In units of the standardised latents.
    autoencoder : VQGAN
        The autoencoder, on any device.
    space : LatentSpace
        Standardisation.
    data : TrainingData
        Model grid and scale.

    Returns
    -------
    Tensor of shape (3, J, C, x, y, z)
        Change per mm.
    """
    inside, edges = data.grid.mask, np.linalg.norm(data.grid.affine[:3, :3], axis=0)
    zero = space.restore(torch.zeros_like(maps[:1]))
    rest = decode_run(autoencoder, zero, data.scale, inside)
    volumes = (decode_run(autoencoder, space.restore(maps), data.scale, inside) - rest) * inside
    latent_rest = encode_run(autoencoder, rest, data.scale, inside)
    out = []
    for axis, edge in enumerate(edges, start=1):
        slope = (np.roll(volumes, -1, axis) - np.roll(volumes, 1, axis)) / (2 * edge) * inside
        raw = encode_run(autoencoder, rest + slope, data.scale, inside) - latent_rest
        out.append(torch.from_numpy(raw) / space.scale * space.mask)
    return torch.stack(out)


def smooth_fields(places: np.ndarray, fwhm: float, count: int) -> np.ndarray:
    """Compute the principal components of a smooth Gaussian field of unit variance.

    Parameters
    ----------
    places : ndarray of shape (P, 3)
        Positions, mm.
    fwhm : float
        Smoothness: that of white noise smoothed by this much, mm.
    count : int
        Largest number of components B.

    Returns
    -------
    ndarray of shape (B', P)
        Each times its standard deviation; their squares add up to 1 on average. At places that
        are no landmarks by Nyström's method.
    """
    landmarks = places[:: -(-len(places) // LANDMARKS)]
    count = min(count, len(landmarks) - 1)
    kernel = _kernel(landmarks, landmarks, fwhm)
    start = np.ones(len(landmarks))  # the same components in every call
    values, vectors = eigsh(kernel, k=count, v0=start)
    values, vectors = values[::-1].clip(1e-9), vectors[:, ::-1]
    fields = (_kernel(places, landmarks, fwhm) @ vectors / np.sqrt(values)).T
    return fields / np.sqrt(np.square(fields).sum(0).mean())


def _kernel(one: np.ndarray, other: np.ndarray, fwhm: float) -> np.ndarray:
    """Covariance between places of white noise that was smoothed."""
    squared = np.square(one[:, None] - other[None]).sum(-1)
    return np.exp(-squared / (4 * (fwhm / FWHM_PER_SIGMA) ** 2))


def fit_individuals(
    response: Response,
    statistics: ResponseStatistics,
    predictions: Mapping[int, Tensor],
    runs: LatentRuns,
    data: TrainingData,
    folder: Path,
    gradients: Callable[[Tensor], Tensor],
) -> None:
    """Fit the prior of a response model.

    Parameters
    ----------
    response : Response
        With everything else fitted; its `prior` is set.
    statistics : ResponseStatistics
        Of the training participants, in halves.
    predictions : mapping of int to Tensor of shape (V, 2, C, x, y, z)
        What the response model predicts for those participants, by number, whom variances are
        estimated from: `MOST_PARTICIPANTS` at most.
    runs : LatentRuns
        The training runs.
    data : TrainingData
        Grid and mask.
    folder : pathlib.Path
        Gets what the halves of the participants' data say of the parameters.
    gradients : callable
        Differentiates maps, as `map_gradients` does.
    """
    prior = response.prior
    prior.autocovariance.copy_(torch.from_numpy(statistics.autocovariance))
    noise = statistics.whitening
    shape, count = (len(prior.noise_variance), -1), len(noise.modes)
    prior.noise_modes[:count, :, prior.mask] = (
        torch.from_numpy(noise.modes).float().unflatten(1, shape)
    )
    prior.noise_variance[:, prior.mask] = torch.from_numpy(noise.variance).float().view(shape)
    prior.gradients.copy_(gradients(response.synthetic_maps))
    halves = [
        _residuals(statistics, s, prediction, prior.mask) for s, prediction in predictions.items()
    ]
    edges = np.linalg.norm(data.grid.affine[:3, :3], axis=0) * data.config.autoencoder.factor
    places = np.argwhere(prior.mask.numpy()) * edges
    best: tuple[Tensor, _Study] | None = None
    for fwhm in SMOOTHNESS:
        fields = smooth_fields(places, fwhm, len(prior.fields))
        prior.fields.zero_()
        prior.fields[: len(fields), prior.mask] = torch.from_numpy(fields).float()
        study = _Study(response.inference(), halves, folder)
        log.debug("fields of %.0f mm: gain %.4f", fwhm, study.gain())
        if best is None or study.gain() > best[1].gain():
            best = prior.fields.clone(), study
    assert best is not None
    chosen_fields, study = best
    study.choose_noise_factor()
    study.drop_families()
    prior.fields.copy_(chosen_fields)
    prior.noise_factor.fill_(study.noise_factor)
    prior.sd.copy_(study.fitted())
    prior.remainder.fill_(_remainder(response, halves, runs.latent_space.scale))
    log.info(
        "participants differ in %s; %.2f of the variance between them is none of these; "
        "noise counts %.1f times",
        ", ".join(f"{n} {v:.2f}" for n, v in zip(FAMILIES, prior.sd.tolist(), strict=True)),
        float(prior.remainder / (1 + prior.remainder)), study.noise_factor,
    )  # fmt: skip


@dataclass(frozen=True)
class _Half:
    """One half of a participant's runs: F in float32 and on the disk, since there are many, and s.

    F is the row of this number.
    """

    rows: StoredRows
    number: int
    scores: Tensor

    @property
    def information(self) -> Tensor:
        """Read F, (n, n)."""
        return torch.from_numpy(self.rows[self.number])


class _Study:
    """Predict halves of participants' runs from the other halves.

    Parameters
    ----------
    inference : IndividualInference
        With fields, noise and gradients.
    halves : sequence of pairs of (moments, residual)
        Statistics of each participant.
    folder : pathlib.Path
        Gets a file.
    """

    def __init__(
        self,
        inference: IndividualInference,
        halves: Sequence[Sequence[tuple[Tensor, Tensor]]],
        folder: Path,
    ) -> None:
        self.families = inference.families()
        self.noise_factor = 1.0
        size = len(self.families)
        rows, numbered = StoredRows(folder, (2 * len(halves), size, size)), itertools.count()

        def half(moments: Tensor, residual: Tensor) -> _Half:
            number = next(numbered)
            rows[number] = inference.information(moments).float().numpy()
            return _Half(rows, number, inference.evidence(moments, residual).scores)

        self.participants = [[half(*part) for part in two] for two in halves]
        numbers = range(len(self.participants))
        self.folds = [(numbers[0::2], numbers[1::2]), (numbers[1::2], numbers[0::2])]
        start = torch.tensor(START_SD, dtype=torch.float64)
        self.sd = [self._fit(learners, start) for learners, _ in self.folds]

    def _posterior(self, sd: Tensor, halves: Sequence[_Half]) -> tuple[Tensor, Tensor]:
        """Return mean and Cholesky factor, both in units of the prior's SD."""
        scale = sd[self.families]
        f = torch.stack([h.information for h in halves]).sum(0).double() / self.noise_factor
        factor = torch.linalg.cholesky(torch.eye(len(f)).double() + scale[:, None] * f * scale)
        scores = torch.stack([h.scores for h in halves]).sum(0) / self.noise_factor
        return torch.cholesky_solve((scale * scores)[:, None], factor)[:, 0], factor

    def _fit(self, members: Sequence[int], sd: Tensor) -> Tensor:
        """Maximise the likelihood of the families' SDs, (4,), by EM."""
        counts = torch.bincount(self.families, minlength=len(FAMILIES)).double()
        for _ in range(ITERATIONS):
            squares = torch.zeros(len(FAMILIES)).double()
            for s in members:
                mean, factor = self._posterior(sd, self.participants[s])
                both = mean**2 + torch.cholesky_inverse(factor).diagonal()
                squares.index_add_(0, self.families, both)
            sd = sd * (squares / (counts * len(members)).clamp(min=1)).sqrt()
        return sd

    def gain(self) -> float:
        """Sum, over participants left out, how much better one half is foretold by the other.

        A prediction x lowers the weighted squared error of a half with F and s by
        2 xᵀs − xᵀF x.
        """
        gain = 0.0
        for sd, (_, left_out) in zip(self.sd, self.folds, strict=True):
            for s in left_out:
                for known, new in (self.participants[s], self.participants[s][::-1]):
                    x = sd[self.families] * self._posterior(sd, [known])[0]
                    gain += float(2 * x @ new.scores - x @ (new.information.double() @ x))
        return gain

    def choose_noise_factor(self) -> None:
        """Set the noise factor that foretells most."""
        self.noise_factor = self._best("noise_factor", NOISE_FACTORS)

    def drop_families(self) -> None:
        """Take out each family of differences without which others foretell no less."""
        for number in range(len(FAMILIES)):
            without = [sd.clone() for sd in self.sd]
            for sd in without:
                sd[number] = 0
            self.sd = self._best("sd", (self.sd, without))

    def _best(self, name: str, values: Sequence[Any]) -> Any:
        """Return the value of an attribute with the largest gain."""
        gains = []
        for value in values:
            setattr(self, name, value)
            gains.append(self.gain())
        return values[int(np.argmax(gains))]

    def fitted(self) -> Tensor:
        """Fit the SDs to all participants; 0 where nothing foretells anything."""
        start = torch.stack(self.sd).mean(0)
        if self.gain() <= 0:
            return torch.zeros_like(start)
        return self._fit(range(len(self.participants)), start)


def _residuals(
    statistics: ResponseStatistics, s: int, prediction: Tensor, mask: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Return XᵀV⁻¹X and what the prediction leaves of XᵀV⁻¹Z, in both halves of a participant."""
    expected = prediction[..., mask].flatten(2).flatten(0, 1).double()
    out = []
    for m, p in zip(statistics.moments[s], statistics.products[s], strict=True):
        moments = torch.from_numpy(m)
        out.append((moments, torch.from_numpy(p).double() - moments @ expected))
    return out


def _remainder(
    response: Response, halves: Sequence[Sequence[tuple[Tensor, Tensor]]], scale: Tensor
) -> float:
    """Compare the variance between participants, beyond noise, with that of the prior.

    The noise of two halves is independent, so that their product estimates the variance.
    """
    if not response.prior.present:
        return 0.0
    mask = response.prior.mask
    weight = scale[:, mask].flatten().double()  # effects in the unit of the volumes count
    estimates = torch.stack([torch.stack([_effects(*half) for half in two]) for two in halves])
    estimates = (estimates - estimates.mean(0)) * weight  # S 2 V D
    count = len(estimates)
    observed = float((estimates[:, 0] * estimates[:, 1]).sum()) / (count - 1)
    inference, generator = response.inference(), torch.Generator().manual_seed(0)
    nobody = inference.posterior(None)
    draws = [inference.deviation(nobody.draw(generator))[:, 0] for _ in range(PRIOR_DRAWS)]
    modelled = float(
        (torch.stack(draws)[..., mask].flatten(2) * weight).square().sum() / PRIOR_DRAWS
    )
    return float(np.clip(observed / max(modelled, 1e-12) - 1, 0, MAXIMUM_REMAINDER))


def _effects(moments: Tensor, residual: Tensor) -> Tensor:
    """Estimate HRF effects (V, D) by least squares; 0 for trial types without events."""
    ridge = RIDGE * moments.diagonal().mean().clamp(min=1e-12) * torch.eye(len(moments)).double()
    return torch.linalg.solve(moments + ridge, residual)[0::2]
