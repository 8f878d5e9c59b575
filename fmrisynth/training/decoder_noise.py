"""What the autoencoder keeps and loses of the training runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from tqdm import tqdm

from fmrisynth.model.decoder_noise import ObservationNoise
from fmrisynth.model.denoiser.conditioning import RunCondition
from fmrisynth.model.model import Model
from fmrisynth.model.noise.autocovariance import NO_DRIFT, unfiltered
from fmrisynth.preprocess.cache import RunData
from fmrisynth.preprocess.carrier import removed_basis

__all__ = ["VOLUMES_AT_ONCE", "observe", "some_of", "typical_basis"]

STATISTICS_RUNS = 48  # runs that noise is estimated from, at most
VOLUMES_AT_ONCE = 16

log = logging.getLogger(__name__)


def some_of(count: int, seed: int, most: int = STATISTICS_RUNS) -> list[int]:
    """Choose the runs that statistics are taken from, seeded and sorted."""
    chosen = np.random.default_rng(seed).permutation(count)[:most]
    return sorted(int(i) for i in chosen)


def typical_basis(model: Model, data: Sequence[RunData]) -> np.ndarray:
    """Return what is taken out of a run of median length, see `removed_basis`.

    Whole volumes keep their mean and drift.
    """
    if model.info.config.preprocess.normalisation == "volume":
        return NO_DRIFT
    typical = sorted(data, key=lambda d: len(d.frames))[len(data) // 2]
    high_pass = model.info.config.preprocess.high_pass
    return removed_basis(len(typical.frames), typical.run.t_r, high_pass)


def observe(
    model: Model,
    data: Sequence[RunData],
    latents: Sequence[np.ndarray],
    conditions: Sequence[RunCondition],
    seed: int,
    fabric: Fabric,
) -> ObservationNoise:
    """Measure what the autoencoder keeps and loses of the training runs."""
    mask = model.grid.mask
    sums = _Sums(len(model.info.vocabulary.trial_types))
    for i in tqdm(some_of(len(data), seed), desc="Observation noise", unit="run"):
        frames = np.asarray(data[i].frames, np.float32)[:, mask]  # T V, %
        decoded = []
        with torch.inference_mode(), fabric.autocast():
            raw = torch.from_numpy(np.asarray(latents[i], np.float32)).to(fabric.device)
            for piece in raw.split(VOLUMES_AT_ONCE):
                decoded.append(model.autoencoder.decode(piece)[:, 0].float().cpu())
        series = torch.cat(decoded).numpy()[:, mask] * model.info.scale
        sums.add(frames, series, conditions[i].design.evoked[..., 0])
    observation = ObservationNoise(model.grid.shape)
    inside = torch.from_numpy(mask)
    observation.decoded_sd[inside] = torch.from_numpy(np.sqrt(sums.kept / sums.count)).float()
    observation.lost_sd[inside] = torch.from_numpy(np.sqrt(sums.lost / sums.count)).float()
    observed = float(np.mean(sums.products / np.maximum(sums.lost, 1e-9)))
    underlying = unfiltered(np.array([1.0, observed]), typical_basis(model, data))
    observation.lag1.fill_(underlying[1] / underlying[0])
    observation.evoked_gain.fill_(sums.evoked_gain())
    log.info(
        "the autoencoder keeps %.3f of the residuals' variance and %.3f of evoked amplitudes",
        1 - float(np.sum(sums.lost) / np.sum(sums.kept + sums.lost)),
        float(observation.evoked_gain),
    )
    return observation


class _Sums:
    """Running sums over runs of what the autoencoder keeps (x̂) and loses (x − x̂)."""

    def __init__(self, n_trial_types: int) -> None:
        self.kept = self.lost = self.products = np.zeros(1)
        self.count = 0
        # regressor products and regressor-signal products, in two halves of each run
        self._moments = np.zeros((2, n_trial_types, n_trial_types))
        self._true: list[Any] = [0.0, 0.0]
        self._decoded: list[Any] = [0.0, 0.0]

    def add(self, frames: np.ndarray, decoded: np.ndarray, regressors: np.ndarray) -> None:
        """Add a run: frames and decoded (T, V), regressors (T, K)."""
        rest = frames - decoded
        rest -= rest.mean(0)
        self.kept = self.kept + np.square(decoded).sum(0)
        self.lost = self.lost + np.square(rest).sum(0)
        self.products = self.products + (rest[1:] * rest[:-1]).sum(0)
        self.count += len(frames)
        middle = len(frames) // 2
        for half, part in enumerate((slice(None, middle), slice(middle, None))):
            x = regressors[part]
            self._moments[half] += x.T @ x
            self._true[half] = self._true[half] + x.T @ frames[part]
            self._decoded[half] = self._decoded[half] + x.T @ decoded[part]

    def evoked_gain(self) -> float:
        """Slope of decoded on true effects, by instrumental variables.

        Both effects are noisy, and the noise is decoded too. Effects of the
        other halves of the runs serve as instrument: their noise is all but
        independent, so only what is evoked counts.
        """
        ridge = 1e-3 * np.trace(self._moments.sum(0)) / len(self._moments[0])
        inverse = [np.linalg.inv(m + ridge * np.eye(len(m))) for m in self._moments]
        true = [i @ t for i, t in zip(inverse, self._true, strict=True)]
        decoded = [i @ d for i, d in zip(inverse, self._decoded, strict=True)]
        numerator = (decoded[0] * true[1]).sum() + (decoded[1] * true[0]).sum()
        denominator = 2 * (true[0] * true[1]).sum()
        if not denominator > 0:
            return 1.0
        log.debug("unclipped evoked gain %.3f", numerator / denominator)
        return float(np.clip(numerator / denominator, 0.25, 1.0))
