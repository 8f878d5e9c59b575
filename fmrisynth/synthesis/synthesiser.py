"""From a model and a run's carrier and events to a synthetic run on the run's own grid.

Legend: N frames of the run, W windows, T frames of a window, C latent channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import Bold
from fmrisynth.config.model import SamplingConfig
from fmrisynth.model.denoiser.conditioning import RunCondition, collate
from fmrisynth.model.denoiser.schedule import sampling_angles
from fmrisynth.model.model import Model
from fmrisynth.preprocess.carrier import (
    Carrier,
    drift_basis,
    merge,
    remove_drift,
    removed_basis,
    split,
)
from fmrisynth.preprocess.grid import resample
from fmrisynth.synthesis.guidance import GuidedVelocity
from fmrisynth.synthesis.sampler import SAMPLERS
from fmrisynth.synthesis.windows import joining_weights, window_starts

__all__ = ["Synthesiser", "person_seed", "run_seed", "sample_latents"]

WINDOWS_AT_ONCE = 16
VOLUMES_AT_ONCE = 16


def run_seed(seed: int, label: str, sample: int) -> int:
    """Seed of one synthetic run, independent of which other runs are made, and in what order."""
    return _hashed(f"{seed}/{label}/{sample}")


def person_seed(seed: int, participant: str) -> int:
    """Seed of what all synthetic runs of one participant have in common."""
    return _hashed(f"{seed}/sub-{participant}")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@torch.no_grad()
def sample_latents(
    model: Model,
    condition: RunCondition,
    sampling: SamplingConfig,
    generator: torch.Generator,
    person: int,
    steps: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Tensor:
    """Draw a whole run's standardised latents from overlapping windows at once.

    The noise is drawn for the whole run, so that every window has exactly the
    noise the network was trained with; at every step the windows' velocities
    are averaged with bell-shaped weights.

    Parameters
    ----------
    model : Model
        The trained parts.
    condition : RunCondition
        Of a run of N frames.
    sampling : SamplingConfig
        Sampler, steps, guidance, stride.
    generator : torch.Generator
        CPU generator of all noise.
    person : int
        Seed of what all runs of a person have in common.
    steps : callable
        Wraps the iteration over steps, for a progress bar.

    Returns
    -------
    torch.Tensor
        (N, C, X, Y, Z) float32 on the model's device.
    """
    config = model.info.config.denoiser
    length, n_volumes = config.n_frames, condition.n_volumes
    total = max(n_volumes, length)
    starts = window_starts(total, length, sampling.stride)
    device = model.space.mask.device
    weights = torch.from_numpy(joining_weights(starts, total, length)).to(device)
    conditions = collate([condition.window(int(s), length) for s in starts]).to(device)

    guidance = sampling.guidance
    if model.denoiser.evoked is not None:
        guidance /= float(model.observation.evoked_gain)

    parts = [slice(i, i + WINDOWS_AT_ONCE) for i in range(0, len(starts), WINDOWS_AT_ONCE)]
    guided = [
        GuidedVelocity(
            model.denoiser, conditions[part], guidance, sampling.guidance_rescale, person
        )
        for part in parts
    ]

    def velocity(x: Tensor, theta: float) -> Tensor:
        joined = torch.zeros_like(x)
        for part, of_windows in zip(parts, guided, strict=True):
            v = of_windows(torch.stack([x[s : s + length] for s in starts[part]]), theta)
            for start, weight, piece in zip(starts[part], weights[part], v, strict=True):
                joined[start : start + length] += weight[:, None, None, None, None] * piece
        return joined

    taken = _taken_from_noise(model, total, condition.t_r)

    def draw() -> Tensor:
        with torch.autocast(device.type, enabled=False):
            noise = model.noise.sample(total, generator, person)
            return noise - torch.tensordot(taken @ taken.T, noise, dims=1)

    angles = sampling_angles(config.schedule, sampling.steps)
    sampler = SAMPLERS[sampling.sampler]
    return sampler(velocity, draw(), angles, draw, steps)[:n_volumes]


def _taken_from_noise(model: Model, n_frames: int, t_r: float) -> Tensor:
    """Mean and drift (N, K), which coloured noise has and residuals have not."""
    config = model.info.config
    if config.denoiser.noise == "white" or config.preprocess.normalisation == "volume":
        return torch.zeros(n_frames, 0)
    basis = removed_basis(n_frames, t_r, config.preprocess.high_pass)
    return torch.from_numpy(basis).float().to(model.space.mask.device)


@dataclass
class Synthesiser:
    """Makes synthetic runs with one model.

    Attributes
    ----------
    model : Model
        The trained parts, on their device.
    sampling : SamplingConfig
        How to draw.
    autocast : context manager factory
        Precision of the networks.
    """

    model: Model
    sampling: SamplingConfig
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    def synthesise(
        self, run: Run, bold: Bold, events: pd.DataFrame, seed: int, person: int
    ) -> tuple[np.ndarray, Carrier]:
        """Make one synthetic run: same length, same events, own carrier.

        Parameters
        ----------
        run : Run
            Attributes and timing.
        bold : Bold
            The real run; only its carrier is used.
        events : pandas.DataFrame
            What happens, as `read_events` returns it.
        seed : int
            Of all noise.
        person : int
            Seed of what all runs of the participant have in common.

        Returns
        -------
        bold : numpy.ndarray
            (X, Y, Z, N) float32 in the run's units, zero outside the brain.
        carrier : Carrier
            Its mask is the brain that was filled.
        """
        info = self.model.info
        info.vocabulary.check(run.task, events, str(run.events))
        high_pass = info.config.preprocess.high_pass
        carrier = split(bold, high_pass)[0]  # without a name, the residual's memory is free again
        n_volumes = bold.data.shape[3]
        condition = RunCondition(
            run, events, self.anatomy(carrier), info.vocabulary, n_volumes, high_pass
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode(), self.autocast():
            latents = sample_latents(self.model, condition, self.sampling, generator, person)
            decoded = self.decode(latents)
        if info.config.preprocess.normalisation == "volume":
            return self._whole_volumes(decoded, carrier), carrier
        return merge(carrier, self._residual(decoded, carrier, generator), high_pass), carrier

    def anatomy(self, carrier: Carrier) -> np.ndarray:
        """Return a carrier's mean (relative to its median) and noise level, (2, X, Y, Z)."""
        grid = self.model.grid
        median = np.median(carrier.mean[carrier.mask])
        images = np.stack([carrier.mean / median, carrier.noise_sd], axis=-1)
        moved = resample(images, carrier.affine, grid.affine, grid.shape)
        moved[~grid.mask] = 0
        return np.moveaxis(moved, -1, 0)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Standardised latents (N, C, …) to volumes (X, Y, Z, N) on the model grid, in %."""
        raw = self.model.space.restore(latents)
        volumes = [
            self.model.autoencoder.decode(piece)[:, 0].float().cpu()
            for piece in raw.split(VOLUMES_AT_ONCE)
        ]
        decoded = torch.cat(volumes).numpy() * self.model.info.scale
        decoded *= self.model.grid.mask
        return np.moveaxis(decoded, 0, -1)

    def _residual(
        self, decoded: np.ndarray, carrier: Carrier, generator: torch.Generator
    ) -> np.ndarray:
        """Join decoded residual and observation noise, on the run's own grid, without drift."""
        grid, brain = self.model.grid, carrier.mask
        shape = (brain.shape[0], brain.shape[1], brain.shape[2])
        signal = resample(decoded, grid.affine, carrier.affine, shape)
        series = signal[brain].T  # N V
        del signal  # as large as the run
        high_pass = self.model.info.config.preprocess.high_pass
        basis = drift_basis(len(series), carrier.t_r, high_pass).astype(np.float32)
        if self.sampling.decoder_noise:
            deviation = self._observation_sd(carrier)[brain]
            colour = float(self.model.observation.lag1)
            noise = _autoregressive(series.shape, colour, generator)
            # removing mean and drift takes K + 1 of N degrees of freedom
            kept = len(series) / max(1, len(series) - basis.shape[1] - 1)
            series = series + noise * deviation * np.float32(kept**0.5)
        series = remove_drift(series, basis)
        residual = np.zeros((*shape, len(series)), np.float32)
        residual[brain] = series.T
        return residual

    def _observation_sd(self, carrier: Carrier) -> np.ndarray:
        """Voxelwise SD (%) that the decoded part lacks to reach the carrier's noise level."""
        grid, observation = self.model.grid, self.model.observation
        maps = torch.stack([observation.decoded_sd, observation.lost_sd], dim=-1).cpu().numpy()
        shape = carrier.mask.shape
        decoded, lost = np.moveaxis(
            resample(maps, grid.affine, carrier.affine, (shape[0], shape[1], shape[2])), -1, 0
        )
        missing = np.square(carrier.noise_sd) - np.square(decoded)
        return np.sqrt(np.maximum(missing, np.square(lost / 2)))

    def _whole_volumes(self, decoded: np.ndarray, carrier: Carrier) -> np.ndarray:
        """Return decoded whole volumes, in the run's units, as the published form has them."""
        shape = carrier.mask.shape
        moved = resample(
            decoded, self.model.grid.affine, carrier.affine, (shape[0], shape[1], shape[2])
        )
        median = np.median(carrier.mean[carrier.mask])
        moved *= median
        moved[~carrier.mask] = 0
        return moved


def _autoregressive(shape: tuple[int, ...], lag1: float, generator: torch.Generator) -> np.ndarray:
    """AR(1) noise of unit variance along the first axis, (N, V) float32."""
    noise = torch.randn(shape, generator=generator).numpy()
    innovation = np.float32((1 - lag1**2) ** 0.5)
    for t in range(1, len(noise)):
        noise[t] = np.float32(lag1) * noise[t - 1] + innovation * noise[t]
    return noise
