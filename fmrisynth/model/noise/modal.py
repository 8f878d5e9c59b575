"""Draw noise with the networks of the data: large-scale modes, and stationary noise beside them.

Stationary noise (`fmrisynth.model.noise.stationary`) has one covariance for each offset
between two voxels, wherever they lie; it holds no networks of distant regions that
fluctuate together. The modes are spatial patterns, each with its own variance and
autocovariance in time. A pattern explains more of the runs that it was fitted to than of others,
and their slow courses above all. What the modes explain and what they leave is therefore read
from runs that had no part in their patterns.

Participants differ in how their modes fluctuate together. Each synthetic participant has
networks of its own, the same in all of its runs: with W the covariance of the modes'
courses, each scaled to unit variance,

    W(participant) = I + Σ_q g_q · D_q,  g_q ~ N(0, 1)

where D_q are the principal components of how W differs between the training participants,
scaled to their reliability (`fmrisynth.model.individual_differences`). No participant's own
networks are copied, unless it is asked for: `ModalNoise.infer` returns the noise of one
participant, from that participant's runs.

Legend: K modes, of which participants differ in the first M; N frames, L lags, C channels,
X Y Z box, P voxels of the brain, D features, Q components.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import groupby
from operator import itemgetter
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.individual_differences import draw_difference
from fmrisynth.model.noise.autocovariance import (
    NO_DRIFT,
    correlate_in_time,
    divided_by,
    fit_autocovariance,
)
from fmrisynth.model.noise.axes import principal_axes, unseen_axes, unseen_courses
from fmrisynth.model.noise.networks import network_differences, network_root
from fmrisynth.model.noise.participants import (
    MINIMUM_POWER,
    autocorrelation,
    mean_autocovariance,
    mean_covariance,
    mean_lags,
    mean_remainder,
    process_autocovariance,
    relative_loudness,
    signal_per_frame,
)
from fmrisynth.model.noise.protocol import (
    NoiseModel,
    RunNoise,
    VoxelNoise,
    remove_mean_and_drift,
)
from fmrisynth.model.noise.stationary import StationaryNoise
from fmrisynth.model.noise.steadiness import measure_steadiness, scale_modes

__all__ = ["ModalNoise"]

MINIMUM_REMAINDER = 0.05  # share of a voxel's variance that is left to the stationary part
LEVELLING_FRAMES, LEVELLING_ROUNDS = 256, 3  # noise drawn to bring each voxel to its variance
REMAINDER_RUNS = 48  # that the stationary part is fitted to, at most
DRAWN_MODES = 64  # M: the networks of a participant who is drawn
TRIAL_PARTICIPANTS, MAXIMUM_STRETCH = 64, 2.0  # to make up for what `network_root` removes


class ModalNoise(NoiseModel):
    """Draw noise of unit variance with the modes of the latents and a stationary remainder.

    Parameters
    ----------
    channels : int
        Channels C of a field.
    mask : Tensor of shape (X, Y, Z), bool
        Latent voxels that hold brain.
    modes : int
        Largest number of modes K.
    individual : int
        Largest number Q of components of the differences between participants; 0
        gives all participants the same networks.
    order : int
        Order of the autoregressions.
    frames : int
        Frames of a training window.
    high_pass : float or None
        Highest drift frequency that whole runs are drawn without, Hz; None leaves
        mean and drift in.

    Attributes
    ----------
    axes : Tensor of shape (K, K) or None
        That the courses of an inferred participant are mixed along, as columns.
    inferred_variance : Tensor of shape (C, X, Y, Z) or None
        `variance` of an inferred participant.
    observed : Tensor of shape (K, L)
        Autocovariance of the modes' courses in runs, before it is divided by `agreement`.
    signal_per_frame : Tensor of shape (2, K)
        Variance between participants over the chance variance of one frame, for each mode: of how
        loud its band is, and of the covariance of the band's modes.
    remainder_signal : Tensor of shape ()
        The same of the variance that the modes leave of each voxel.
    agreement : Tensor of shape (L,)
        Of the intensities that runs will be multiplied by.
    steadiness : Tensor of shape (K + 1,)
        Variance of runs that are divided by their intensities over that before, along each mode
        and of what the modes leave.
    """

    mask: Tensor
    modes: Tensor
    autocovariance: Tensor
    window_autocovariance: Tensor
    observed: Tensor
    differences: Tensor
    remainder_sd: Tensor
    signal_per_frame: Tensor
    remainder_signal: Tensor
    agreement: Tensor
    steadiness: Tensor
    axes: Tensor | None
    inferred_variance: Tensor | None

    def __init__(
        self,
        channels: int,
        mask: Tensor,
        modes: int,
        individual: int = 32,
        *,
        order: int = 8,
        frames: int = 16,
        high_pass: float | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.order, self.high_pass = channels, order, high_pass
        # until a participant is inferred, the variance is one, and modes have courses of their own
        self.register_buffer("inferred_variance", None, persistent=False)
        self.register_buffer("axes", None, persistent=False)
        voxels = int(mask.sum())
        count = min(modes, channels * voxels)
        self.register_buffer("mask", mask.bool(), persistent=False)
        self.register_buffer("modes", torch.zeros(count, channels, voxels))
        self.register_buffer("autocovariance", torch.zeros(count, order + 1))
        self.register_buffer("window_autocovariance", torch.zeros(count, max(2, frames)))
        self.register_buffer("observed", torch.zeros(count, order + 1))
        drawn = min(count, DRAWN_MODES)
        self.register_buffer("differences", torch.zeros(individual, drawn, drawn))
        self.register_buffer("remainder_sd", torch.ones(channels, voxels))
        self.register_buffer("signal_per_frame", torch.zeros(2, count))
        self.register_buffer("remainder_signal", torch.zeros(()))
        self.register_buffer("agreement", torch.ones(max(order + 1, frames)))
        self.register_buffer("steadiness", torch.ones(count + 1))
        # without a filter of its own: drift is removed from the sum
        self.remainder = StationaryNoise(channels, mask, order=order, frames=frames)

    @torch.no_grad()
    def fit(self, fields: Iterable[Tensor], removed: np.ndarray) -> Self:
        """Estimate modes, variances, autocovariances and remainder; see `NoiseModel.fit`."""
        runs = [field[..., self.mask].flatten(1).float() for field in fields]  # N C·P
        axes = principal_axes(torch.cat(runs), len(self.modes))  # C·P K
        self.modes.copy_(axes.T.reshape(self.modes.shape))
        unseen = unseen_axes(runs, len(self.modes))
        courses = unseen_courses(runs, unseen, axes)  # N K
        self.autocovariance.copy_(process_autocovariance(courses, self.order, removed))
        frames = self.window_autocovariance.shape[1]
        self.window_autocovariance.copy_(process_autocovariance(courses, frames - 1, NO_DRIFT))
        self.observed.copy_(process_autocovariance(courses, self.order, NO_DRIFT))
        power = self.window_autocovariance[:, 0]
        share = torch.einsum("kcp,k->cp", self.modes.square(), power)
        chosen = range(0, len(runs), -(-len(runs) // REMAINDER_RUNS))
        rest = [runs[i] - courses[i] @ unseen[i].T for i in chosen]
        deviation = torch.cat(rest).square().mean(0).sqrt().clamp(min=1e-6)
        self.remainder.fit(
            (self._field((run / deviation).unflatten(1, self.remainder_sd.shape)) for run in rest),
            removed,
        )
        # whatever share the modes have of a voxel, its total variance is one
        self._level((1 - share).clamp(min=MINIMUM_REMAINDER))
        return self

    def _level(self, variance: Tensor) -> None:
        """Scale the remainder, free of the modes, to a variance (C, P) at each voxel."""
        self.remainder_sd.copy_(variance.sqrt())
        for number in range(LEVELLING_ROUNDS):
            generator = torch.Generator().manual_seed(number)
            drawn = self._remainder(self.remainder.sample_window(LEVELLING_FRAMES, generator))
            self.remainder_sd *= (variance / drawn.square().mean(0).clamp(min=1e-6)).sqrt()

    def _remainder(self, field: Tensor) -> Tensor:
        """Scale stationary noise and project the modes out of it, (N, C, P).

        Its part in the modes would add to their variance, and make their correlated
        courses more independent than they are.
        """
        rest = (field[..., self.mask] * self.remainder_sd).flatten(1)
        axes = self.modes.flatten(1)  # K C·P
        return (rest - rest @ axes.T @ axes).unflatten(1, self.remainder_sd.shape)

    @torch.no_grad()
    def fit_individual_differences(
        self, fields: Iterable[Tensor], participants: Sequence[str]
    ) -> Self:
        """Estimate how the networks differ between participants; see `NoiseModel`."""
        width = self.differences.shape[1]
        courses: list[list[Tensor]] = []

        def statistics_of_each() -> Iterator[list[RunNoise]]:
            for _, own in groupby(zip(participants, fields, strict=True), key=itemgetter(0)):
                runs = [self.statistics(field) for _, field in own]
                courses.append([run.courses[:, :width].clone() for run in runs])
                yield runs

        signal, of_remainder = signal_per_frame(statistics_of_each())
        self.signal_per_frame.copy_(signal)
        self.remainder_signal.fill_(of_remainder)
        if len(self.differences):
            self.differences.copy_(network_differences(courses, len(self.differences)))
            self._stretch()
        return self

    @property
    def individual(self) -> bool:
        """Whether participants were seen to differ; see `NoiseModel`."""
        return bool(self.signal_per_frame.any())

    @property
    def variance(self) -> Tensor:
        """Variance at each place, (C, X, Y, Z); see `NoiseModel`."""
        return super().variance if self.inferred_variance is None else self.inferred_variance

    @property
    def mode_maps(self) -> Tensor:
        """The modes, (K, C, X, Y, Z); see `NoiseModel`."""
        return self._field(self.modes)

    @property
    def mode_sd(self) -> Tensor:
        """Standard deviation along each mode, (K,); see `NoiseModel`."""
        variance = self.window_autocovariance[:, 0]
        if self.axes is not None:
            variance = self.axes.square() @ variance
        return (variance * self.steadiness[:-1]).clamp(min=MINIMUM_POWER).sqrt()

    def frame_energy(self, noise: Tensor) -> Tensor:
        """Average over modes, relative to each one's variance, (N,); see `NoiseModel`."""
        courses = noise[..., self.mask].flatten(1).float() @ self.modes.flatten(1).T
        return (courses.square() / self.observed[:, 0].clamp(min=MINIMUM_POWER)).mean(1)

    @torch.no_grad()
    def fit_steadiness(self, runs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compare the power of modes and remainder before and after; see `NoiseModel`."""
        self.steadiness.copy_(measure_steadiness(runs, self.mask, self.modes.flatten(1)))

    def steady(self, noise: Tensor) -> Tensor:
        """Scale noise as dividing by intensities does; see `NoiseModel`."""
        return self._scaled(noise, self.steadiness.sqrt())

    def unsteady(self, noise: Tensor) -> Tensor:
        """Scale noise back; the inverse of `steady`."""
        return self._scaled(noise, self.steadiness.rsqrt())

    def _scaled(self, noise: Tensor, factors: Tensor) -> Tensor:
        if (factors == 1).all():
            return noise
        scaled = scale_modes(noise[..., self.mask].flatten(1), self.modes.flatten(1), factors)
        return self._field(scaled.unflatten(1, self.remainder_sd.shape))

    @torch.no_grad()
    def statistics(self, noise: Tensor) -> RunNoise:
        """Reduce a run's noise to the modes' courses and what they leave; see `NoiseModel`."""
        flat = noise[..., self.mask].flatten(1).float()
        axes = self.modes.flatten(1)  # K C·P
        courses = flat @ axes.T
        rest = flat - courses @ axes
        power = rest.square().mean(0).view_as(self.remainder_sd)
        return RunNoise(courses.half(), power.half(), autocorrelation(rest, self.order + 1))

    @torch.no_grad()
    def infer(self, runs: Sequence[RunNoise], removed: np.ndarray) -> ModalNoise:
        """Combine what runs show of a participant with the group's noise; see `NoiseModel`.

        Covariances are averaged, weighted by how much these runs know of either mode; the group's
        is made as loud in each band as the runs. The courses are mixed from those along the axes of
        the average, each with a course of its own in time: what lies on them at other lags.
        """
        frames = sum(len(run.courses) for run in runs)
        if not frames or not self.individual:
            return self
        signals = frames * self.signal_per_frame, frames * self.remainder_signal
        known, known_rest = (s / (1 + s) for s in signals)  # reliability, by Spearman and Brown
        shown = [run.courses.float().to(known) for run in runs]
        covariance = mean_covariance(shown).to(known)
        louder = relative_loudness(covariance.diagonal(), self.observed[:, 0])
        group = ((1 - known[1]) * (1 + known[0] * (louder - 1)))[:, None] * self.observed
        root = known[1].sqrt()
        covariance = root[:, None] * covariance * root + group[:, 0].diag()
        axes = torch.linalg.eigh(covariance)[1]
        mixed = mean_autocovariance([course * root @ axes for course in shown], group.shape[1])
        rows = mixed.to(group) + axes.square().T @ group  # K L
        scale = rows[:, :1].clamp(min=MINIMUM_POWER)
        before = fit_autocovariance(rows, removed).to(rows) * scale
        windows = fit_autocovariance(rows, NO_DRIFT).to(rows) * scale
        lags = mean_lags(runs)[None]
        rest = fit_autocovariance(lags, removed)
        power = torch.einsum("kcp,k->cp", self.modes.square(), self.observed[:, 0])
        expected = (1 - power).clamp(min=MINIMUM_REMAINDER)
        variance = known_rest * mean_remainder(runs).to(expected) + (1 - known_rest) * expected
        own = copy(self)
        own._modules, own._buffers = dict(self._modules), dict(self._buffers)
        own._buffers |= {
            "axes": axes,
            "autocovariance": divided_by(before, self.agreement, removed),
            "window_autocovariance": divided_by(windows, self.agreement, NO_DRIFT),
            "differences": self.differences[:0],
            "remainder_sd": self.remainder_sd * (variance / expected).sqrt(),
        }
        own.remainder = self.remainder.with_lags(
            divided_by(rest, self.agreement.cpu(), removed)[0],
            divided_by(fit_autocovariance(lags, NO_DRIFT), self.agreement.cpu(), NO_DRIFT)[0],
            float(known_rest),
        )
        modes = self.modes.flatten(1)
        power = ((covariance @ modes) * modes).sum(0).view_as(variance)
        own.voxels = VoxelNoise.average([run.voxels for run in runs if run.voxels is not None])
        own._buffers["inferred_variance"] = self._field((variance + power)[None])[0]
        return own

    @torch.no_grad()
    def divide_lags(self, agreement: Tensor, removed: np.ndarray) -> None:
        """Prepare for intensities; see `NoiseModel`."""
        self.agreement.copy_(agreement[: len(self.agreement)])
        for noise in (self, self.remainder):
            runs, windows = noise.autocovariance, noise.window_autocovariance
            runs.copy_(divided_by(runs, self.agreement, removed))
            windows.copy_(divided_by(windows, self.agreement, NO_DRIFT))

    def _stretch(self) -> None:
        """Scale the differences up to the variance that the minimum eigenvalue of W removes."""
        target, stretch = float(self.differences.square().sum()), 1.0
        original, unit = (
            self.differences.clone(),
            torch.eye(self.differences.shape[1]).to(self.modes),
        )
        for _ in range(LEVELLING_ROUNDS if target > 0 else 0):
            roots = (self._root(seed) for seed in range(TRIAL_PARTICIPANTS))
            drawn = sum(float((root @ root - unit).square().sum()) for root in roots)
            stretch *= (target * TRIAL_PARTICIPANTS / drawn) ** 0.5
            self.differences.copy_(original * min(stretch, MAXIMUM_STRETCH))

    def sample_run(
        self, n_frames: int, t_r: float, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw a run (N, C, X, Y, Z) float32, without mean and drift; see `NoiseModel`."""
        rest = self._remainder(self.remainder.sample_run(n_frames, t_r, generator))
        noise = self._draw(rest, generator, self.autocovariance, participant_seed)
        return remove_mean_and_drift(noise, t_r, self.high_pass)

    def sample_window(
        self, n_frames: int, generator: torch.Generator, participant_seed: int = 0
    ) -> Tensor:
        """Draw a window (N, C, X, Y, Z) float32 of unit variance; see `NoiseModel`."""
        rest = self._remainder(self.remainder.sample_window(n_frames, generator))
        drawn = self._draw(rest, generator, self.window_autocovariance, participant_seed)
        return self.steady(drawn)

    def _draw(
        self, rest: Tensor, generator: torch.Generator, autocovariance: Tensor, seed: int
    ) -> Tensor:
        """Add the modes of one participant to the remainder (N, C, P)."""
        white = torch.randn(len(self.modes), len(rest), generator=generator)
        courses = correlate_in_time(autocovariance, white).to(rest)  # K N
        if self.differences.any():
            drawn = self.differences.shape[1]
            courses[:drawn] = self._networks(seed) @ courses[:drawn]
        if self.axes is not None:
            courses = self.axes @ courses
        return self._field(rest + torch.einsum("kn,kcp->ncp", courses, self.modes))

    def _networks(self, seed: int) -> Tensor:
        """Mix the modes' courses as in one participant, (M, M): the root of W, in their scales."""
        scale = self.autocovariance[: self.differences.shape[1], 0].clamp(min=MINIMUM_POWER).sqrt()
        return scale[:, None] * self._root(seed) / scale

    def _root(self, seed: int) -> Tensor:
        """Take the root of one participant's W, as loud as all modes of the group, (M, M)."""
        return network_root(draw_difference(self.differences, seed), self.autocovariance[:, 0])

    def _field(self, values: Tensor) -> Tensor:
        """Put values (N, C, P) into the box (N, C, X, Y, Z), zero outside the brain."""
        field = values.new_zeros(*values.shape[:2], *self.mask.shape)
        field[..., self.mask] = values
        return field
