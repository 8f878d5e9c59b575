"""Synthesise a run on its own grid from a model, the run's carrier and its events.

Legend: N frames of the run, W windows, T frames of a window, C latent channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.pieces import brain_pieces
from fmrisynth.config.model import SamplingConfig
from fmrisynth.model.codec import decode_run
from fmrisynth.model.denoiser.conditioning import RunCondition, collate
from fmrisynth.model.denoiser.schedule import sampling_angles
from fmrisynth.model.model import Model
from fmrisynth.model.noise.protocol import NoiseModel, VoxelNoise
from fmrisynth.preprocess.carrier import (
    Carrier,
    drift_basis,
    merge_pieces,
    remove_drift,
    removed_basis,
)
from fmrisynth.preprocess.grid import continue_outside, resample, resample_into
from fmrisynth.synthesis.autocorrelation import (
    add_neighbours,
    autoregressive,
    decoder_lag1,
    decoder_neighbours,
)
from fmrisynth.synthesis.guidance import GuidedVelocity
from fmrisynth.synthesis.missing_noise import missing_sd, temporal_sd
from fmrisynth.synthesis.noise_sources import out_of_step, quiet_tissue, without_physiology
from fmrisynth.synthesis.regions import balance_regions
from fmrisynth.synthesis.sampler import SAMPLERS
from fmrisynth.synthesis.windows import joining_weights, window_starts

__all__ = ["Synthesiser", "participant_seed", "run_seed", "sample_latents"]

WINDOWS_AT_ONCE = 16
SAME_EDGE = 0.25  # voxels of another size than the model's have other neighbours


def run_seed(seed: int, label: str, sample: int) -> int:
    """Return the seed of one synthetic run, independent of which other runs are synthesised."""
    return _hashed(f"{seed}/{label}/{sample}")


def participant_seed(seed: int, participant: str, sample: int = 1) -> int:
    """Return the seed of all that one sample of a participant's runs has in common."""
    repeated = f"/sample-{sample}" if sample > 1 else ""
    return _hashed(f"{seed}/sub-{participant}{repeated}")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@torch.no_grad()
def sample_latents(
    model: Model,
    condition: RunCondition,
    level: Tensor,
    intensity: Tensor,
    sampling: SamplingConfig,
    generator: torch.Generator,
    participant: int,
    deviation: Tensor | None = None,
    noise: NoiseModel | None = None,
    steps: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Tensor:
    """Draw a whole run's standardised latents: noise at its level, plus the evoked response.

    The diffusion starts at noise of the whole run, so that every window has the noise that
    the network was trained with; at every step the velocities of overlapping windows are
    averaged with bell-shaped weights. Without the backbone, that noise is all there is:
    statistics alone.

    Parameters
    ----------
    model : Model
        The trained parts.
    condition : RunCondition
        Of a run of N frames.
    level : Tensor of shape (X, Y, Z)
        Noise level of the run on the latent grid.
    intensity : Tensor of shape (N,)
        Intensity of the noise in each frame.
    sampling : SamplingConfig
        Sampler, steps, guidance, stride.
    generator : torch.Generator
        CPU generator of all noise.
    participant : int
        Seed of all that the noise of a participant's runs has in common.
    deviation : Tensor of shape (V, 2, C, X, Y, Z) or None
        Deviation of the participant's response from the one that anatomy foretells.
    noise : NoiseModel or None
        The participant's; None for the model's.
    steps : callable
        Wraps the iteration over steps, for a progress bar.

    Returns
    -------
    Tensor of shape (N, C, X, Y, Z)
        float32, on the model's device.
    """
    config = model.info.config.denoiser
    length, n_volumes = config.n_frames, condition.n_volumes
    total = max(n_volumes, length)
    starts = window_starts(total, length, sampling.stride)
    device = model.latent_space.mask.device
    weights = torch.from_numpy(joining_weights(starts, total, length)).to(device)
    source = model.noise if noise is None else noise
    conditions = collate([condition.window(int(s), length) for s in starts])
    mode_sd = source.mode_sd.expand(len(starts), -1)
    conditions = replace(conditions, mode_sd=mode_sd.cpu()).to(device)
    # the response model's amplitude is a number; without one, guidance is the network's
    guidance = 1.0 if model.response.present else sampling.guidance
    parts = [slice(i, i + WINDOWS_AT_ONCE) for i in range(0, len(starts), WINDOWS_AT_ONCE)]
    guided = [
        GuidedVelocity(model.denoiser, conditions[part], guidance, sampling.guidance_rescale)
        for part in parts
    ]

    def velocity(x: Tensor, theta: float) -> Tensor:
        joined = torch.zeros_like(x)
        for part, of_windows in zip(parts, guided, strict=True):
            v = of_windows(torch.stack([x[s : s + length] for s in starts[part]]), theta)
            for start, weight, piece in zip(starts[part], weights[part], v, strict=True):
                joined[start : start + length] += weight[:, None, None, None, None] * piece
        return joined

    def draw() -> Tensor:
        with torch.autocast(device.type, enabled=False):
            drawn = source.sample_run(total, condition.t_r, generator, participant)
            drawn = drawn if sampling.networks else out_of_step(drawn, generator)
            # the network has learned from runs that were divided by their intensities
            return source.steady(drawn) if sampling.backbone else drawn

    latents = draw()
    if sampling.backbone:
        angles = sampling_angles(config.schedule, sampling.steps)
        latents = SAMPLERS[sampling.sampler](velocity, latents, angles, draw, steps)
        with torch.autocast(device.type, enabled=False):
            latents = source.unsteady(latents)
    latents = latents[:n_volumes] * (level.to(device) * model.decoder_noise.coarse_gain)
    latents = latents * intensity.to(device)[:, None, None, None, None]
    if not model.response.present:
        return latents
    amplitude = sampling.guidance / float(model.decoder_noise.evoked_gain)
    evoked = torch.from_numpy(condition.design.evoked).to(device)
    mean = model.response.synthetic(evoked, condition.mean_image.to(device), deviation)
    return latents + amplitude * mean


@dataclass
class Synthesiser:
    """Synthesise runs with one model.

    Attributes
    ----------
    model : Model
        The trained parts, on their device.
    sampling : SamplingConfig
        Sampler, steps, guidance.
    autocast : callable
        Returns a context manager that sets the precision of the networks.
    """

    model: Model
    sampling: SamplingConfig
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    def synthesise(
        self,
        run: Run,
        carrier: Carrier,
        noise_sd: np.ndarray,
        events: pd.DataFrame,
        seed: int,
        participant: int,
        deviation: Tensor | None = None,
        noise: NoiseModel | None = None,
        n_seen: int = 0,
    ) -> np.ndarray:
        """Synthesise one run of the same length, with the given events and the run's carrier.

        Parameters
        ----------
        run : Run
            Attributes and timing.
        carrier : Carrier
            Anatomy and drift of the real run.
        noise_sd : ndarray of shape (X, Y, Z)
            Temporal standard deviation (%) of the participant's typical run, on the run's grid.
        events : pandas.DataFrame
            Events of the run, as `read_events` returns them; those of trial types that the
            model has not learned are baseline.
        seed : int
            Seed of all noise.
        participant : int
            Seed of all that the noise of the participant's runs has in common.
        deviation : Tensor of shape (V, 2, C, x, y, z) or None
            Deviation of the participant's response from the one that anatomy foretells.
        noise : NoiseModel or None
            The participant's; None for the model's.
        n_seen : int
            Other runs of the participant that `noise_sd` is the mean of.

        Returns
        -------
        ndarray of shape (X, Y, Z, N)
            float32 in the run's units, zero outside the carrier's mask.
        """
        info, grid = self.model.info, self.model.grid
        events = info.vocabulary.known_events(run.task, events, str(run.events))
        high_pass = info.config.preprocess.high_pass
        condition = RunCondition(
            run, events, self.anatomy(carrier), info.vocabulary, run.n_volumes, high_pass
        )
        generator = torch.Generator().manual_seed(seed)
        noise_sd = noise_sd * np.float32(self.model.noise_level.draw_run(generator, n_seen))
        on_grid = resample(noise_sd, carrier.affine, grid.affine, grid.shape)
        level = self.model.noise_level.of_latents(on_grid)
        intensity = self.model.intensity.sample(run.n_volumes, generator)
        with torch.inference_mode(), self.autocast():
            latents = sample_latents(
                self.model,
                condition,
                level,
                intensity,
                self.sampling,
                generator,
                participant,
                deviation,
                noise,
            )
            decoded = self.decode(latents)
        if info.config.preprocess.removed_high_pass is None:
            return self._whole_volumes(decoded, carrier)
        expected = self._expected_sd(carrier, on_grid, noise or self.model.noise)
        wanted = None if noise is None else noise.voxels
        tissue = None if self.sampling.physiology else quiet_tissue(run, carrier.mask)
        residual = self._residual(
            decoded, carrier, noise_sd, expected, intensity, generator, condition, wanted, tissue
        )
        if not self.sampling.drift:
            carrier = replace(carrier, drift=carrier.drift[:0])
        return merge_pieces(carrier, residual, run.n_volumes, high_pass)

    def anatomy(self, carrier: Carrier) -> np.ndarray:
        """Resample a carrier's mean (relative to its median) and noise level to the model grid.

        Returns
        -------
        ndarray of shape (2, X, Y, Z)
            float32, zero outside the brain.
        """
        grid = self.model.grid
        median = np.median(carrier.mean[carrier.mask])
        images = np.stack([carrier.mean / median, carrier.noise_sd], axis=-1)
        moved = resample(images, carrier.affine, grid.affine, grid.shape)
        moved[~grid.mask] = 0
        return np.moveaxis(moved, -1, 0)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Decode standardised latents (N, C, …) to volumes (X, Y, Z, N) on the model grid, in %."""
        raw = self.model.latent_space.restore(latents)
        info, mask = self.model.info, self.model.grid.mask
        return np.moveaxis(decode_run(self.model.autoencoder, raw, info.scale, mask), 0, -1)

    def _residual(
        self,
        decoded: np.ndarray,
        carrier: Carrier,
        noise_sd: np.ndarray,
        expected: np.ndarray,
        intensity: Tensor,
        generator: torch.Generator,
        condition: RunCondition,
        wanted: VoxelNoise | None,
        tissue: np.ndarray | None,
    ) -> Iterator[np.ndarray]:
        """Add decoder noise to the decoded residual, take out drift, and give it in pieces.

        Parameters
        ----------
        decoded : ndarray of shape (X', Y', Z', N)
            On the model grid, %.
        carrier : Carrier
            Grid and mask of the run.
        noise_sd : ndarray of shape (X, Y, Z)
            Temporal standard deviation that the run is to have, %.
        expected : ndarray of shape (2, X, Y, Z)
            Of `_expected_sd`.
        intensity : Tensor of shape (N,)
            Intensity of the noise in each frame.
        generator : torch.Generator
            Of the decoder noise.
        condition : RunCondition
            Of the run, whose responses are not noise.
        wanted : VoxelNoise or None
            What voxels are to be like; None for decoder noise as it was learned.
        tissue : ndarray of shape (V,), bool, or None
            Brain voxels whose fluctuations are taken out everywhere.

        Yields
        ------
        ndarray of shape (P, N)
            Of the voxels of each of `brain_pieces`.
        """
        grid, brain = self.model.grid, carrier.mask
        series = resample_into(decoded, grid.affine, carrier.affine, brain).T  # N V
        high_pass = self.model.info.config.preprocess.high_pass
        basis = drift_basis(len(series), carrier.t_r, high_pass).astype(np.float32)
        evoked = condition.design.evoked.reshape(len(series), -1)
        edges, own = (np.linalg.norm(a[:3, :3], axis=0) for a in (carrier.affine, grid.affine))
        drawn: np.ndarray | None = None
        if self.sampling.decoder_noise and wanted is not None and self.sampling.networks:
            known = (noise_sd[brain], brain, edges, generator)
            drawn = balance_regions(series, evoked, wanted, *known)
        elif self.sampling.decoder_noise:
            drawn = temporal_sd(series, evoked)
        if tissue is not None:  # what is left out is not made up for
            series = without_physiology(series, tissue, evoked)
        noise: np.ndarray | None = None
        if drawn is not None:
            foretold, error = expected[:, brain]
            missing = missing_sd(noise_sd[brain], foretold, drawn, error, brain, edges)
            # removing mean and drift takes K + 1 of N degrees of freedom
            inflation = len(series) / max(1, len(series) - basis.shape[1] - 1)
            burst = intensity ** float(self.model.decoder_noise.burst_share)
            burst /= burst.square().mean().sqrt()
            lag1, correlation = float(self.model.decoder_noise.lag1), [0.0, 0.0, 0.0]
            if wanted is not None:
                correlation = decoder_neighbours(wanted.fwhm, series, missing, evoked, brain, edges)
                removed = removed_basis(len(series), carrier.t_r, high_pass)
                agreement = float((burst[1:] * burst[:-1]).mean())
                lag1 = decoder_lag1(wanted.lag1, series, missing, evoked, removed, agreement)
            elif np.allclose(edges, own, rtol=SAME_EDGE):
                correlation = self.model.decoder_noise.neighbours.tolist()
            noise = autoregressive(series.shape, lag1, generator)
            add_neighbours(noise, brain, correlation)
            strength = burst.numpy()[:, None] * np.float32(inflation**0.5)
        first = 0
        for voxels in brain_pieces(brain):
            part = slice(first, first + len(voxels))
            piece = series[:, part]
            if noise is not None:
                piece = piece + noise[:, part] * strength * missing[part]
            yield remove_drift(piece, basis).T
            first += len(voxels)

    def _expected_sd(self, carrier: Carrier, on_grid: np.ndarray, noise: NoiseModel) -> np.ndarray:
        """Foretell the SD (%) of what is decoded, and of the autoencoder's error, (2, X, Y, Z).

        Parameters
        ----------
        carrier : Carrier
            Grid and mask of the run.
        on_grid : ndarray of shape (X', Y', Z')
            Temporal standard deviation that the run is to have, on the model grid.
        noise : NoiseModel
            Of the latents.
        """
        grid, statistics = self.model.grid, self.model.decoder_noise
        factor = self.model.noise_level.factor
        level = self.model.noise_level.of_voxels(on_grid)
        level = continue_outside(level[None], grid.mask, factor)[0]
        gain = statistics.coarse_gain * self.model.latent_space.voxel_sd(noise.variance)
        for axis, length in enumerate(grid.shape):
            gain = gain.repeat_interleave(length // gain.shape[axis], axis)
        sds = (statistics.decoded_sd * gain, statistics.error_sd)
        maps = torch.stack(sds, dim=-1).cpu().numpy() * level[..., None]
        x, y, z = carrier.mask.shape
        moved = resample(maps, grid.affine, carrier.affine, (x, y, z))
        return np.moveaxis(moved, -1, 0)

    def _whole_volumes(self, decoded: np.ndarray, carrier: Carrier) -> np.ndarray:
        """Resample decoded whole volumes (the published form) to the run's grid and units."""
        shape = carrier.mask.shape
        moved = resample(
            decoded, self.model.grid.affine, carrier.affine, (shape[0], shape[1], shape[2])
        )
        median = np.median(carrier.mean[carrier.mask])
        moved *= median
        moved[~carrier.mask] = 0
        return moved
