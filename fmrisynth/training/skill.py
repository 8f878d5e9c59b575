"""Measure what each part of a model adds to the prediction of participants it has not seen.

A loss curve does not show whether a network has learned anything of use: its target is noise of
a hundred times the variance. Here every part is judged on the same noisy windows (paired), so
that a ten-thousandth of the loss can be told from nothing. With u = x_0 / level the latents of a
run, R the response model's mean and ε of the noise model,

    u_θ = cos θ · u + sin θ · ε,  v = cos θ · ε − sin θ · u,

a model that believes in a mean m and a noise level s predicts, for noise of covariance s²·C,

    v̂ = −sin θ · m + k · (u_θ − cos θ · m),  k = cos θ sin θ (1 − s²) / (s² cos²θ + sin²θ).

"nothing" believes in m = 0 and in the level of a typical run, s = 1 / level. The network predicts
the noise; it is judged on runs without what events evoked in them, which is not its business and,
read from a noisy window, would look like skill.

Legend: B windows, T frames, C latent channels, x y z latent grid, A angles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from fmrisynth.model.denoiser.conditioning import Condition, collate
from fmrisynth.model.denoiser.denoiser import GATE_BANDS, Denoiser
from fmrisynth.model.skill import Skill
from fmrisynth.runtime.progress import track
from fmrisynth.training.loop import step_generator
from fmrisynth.training.window_noise import WindowNoise
from fmrisynth.training.windows import LatentRuns, Windows

__all__ = ["ANGLES", "ValidationWindows", "measure_skill", "support", "validation_gain"]

ANGLES = (0.25, 0.6, 0.95, 1.3, math.pi / 2)
WATCHED_ANGLES = (0.6, 1.1)  # where most is to be learned, along a training
WINDOWS_PER_PARTICIPANT = 16
CAUTION = 1.5  # standard errors, up to which support counts as chance
TOGETHER = 8  # windows in one pass of the network
VALIDATION_STREAM = 2**31 - 1  # of random numbers, apart from those of training steps


Batch = tuple[Tensor, Tensor, Condition, list[tuple[int, int]]]


class ValidationWindows:
    """Draw the same windows and noise at every call, participant by participant.

    Parameters
    ----------
    runs : LatentRuns
        Runs of participants that the network does not learn from.
    noise : WindowNoise
        The diffusion's noise, run by run.
    length : int
        Frames T.
    seed : int
        Seed of the choice of windows and of the noise.
    """

    def __init__(self, runs: LatentRuns, noise: WindowNoise, length: int, seed: int) -> None:
        self.runs, self.noise, self.length, self.seed = runs, noise, length, seed
        self.participants = sorted(set(runs.participants))

    def batches(self, number: int) -> Iterator[Batch]:
        """Yield x_0, ε, conditions, and (run, first frame) of one participant's windows."""
        mine = [self.participants[number]]
        runs, noise = self.runs.of(mine), self.noise.of(mine)
        windows = Windows(runs, self.length, onset_share=0.5)
        for first in range(0, WINDOWS_PER_PARTICIPANT, TOGETHER):
            latents, noises, conditions, places = [], [], [], []
            for index in range(first, first + TOGETHER):
                generator = step_generator(self.seed, VALIDATION_STREAM - number, index)
                run, start = windows.choose(generator)
                latents.append(runs.noise(run, start, self.length))
                conditions.append(runs.conditions[run].window(start, self.length))
                places.append((run, start))
                noises.append(noise.draw(run, self.length, generator))
            yield torch.stack(latents), torch.stack(noises), collate(conditions), places


def _mean_square(values: Tensor, mask: Tensor) -> float:
    """Average the square over everything inside the brain."""
    return float(values.square()[..., mask].mean())


@torch.no_grad()
def support(denoiser: Denoiser, validation: ValidationWindows, least_gain: float = 0.0) -> Tensor:
    """Find the share of the velocity that validation participants support, band by band.

    The loss of g · v̂ is least at g = <v, v̂> / <v̂, v̂>. With s the standard error of <v, v̂> over
    participants (over windows, where there are fewer than three participants), g is multiplied
    by 1 − (`CAUTION` · s / <v, v̂>)², or 0 where that is less: what may be chance counts for
    nothing, and what is certain hardly loses size. Each window is seen with ε and with −ε:
    near θ = 0 the velocity is ε almost alone, which cancels where v̂ follows the condition.

    Parameters
    ----------
    denoiser : Denoiser
        The network; its gate stays as it was.
    validation : ValidationWindows
        Windows of participants whom it has not learned from.
    least_gain : float
        Share of the velocity's power that g · v̂ has to explain in a band, whose support is 0
        otherwise.

    Returns
    -------
    Tensor of shape (GATE_BANDS,)
        In [0, 1].
    """
    device, width = denoiser.mask.device, math.pi / 2 / GATE_BANDS
    gate, before = torch.zeros(GATE_BANDS), denoiser.gate.clone()
    denoiser.gate.fill_(1.0)
    bands: list[list[tuple[int, float, float, float]]] = [[] for _ in range(GATE_BANDS)]
    for number in range(len(validation.participants)):
        for latents, noise, condition, _ in validation.batches(number):
            x, e, c = latents.to(device), noise.to(device), condition.to(device)
            encoded = denoiser.encode(c)
            for band in range(GATE_BANDS):
                theta = torch.full((len(x),), (band + 0.5) * width, device=device)
                cos, sin = math.cos(float(theta[0])), math.sin(float(theta[0]))
                products, powers, targets = (torch.zeros_like(theta) for _ in range(3))
                for noise_of_sign in (e, -e):
                    noisy = cos * x + sin * noise_of_sign
                    out = denoiser.as_velocity(
                        noisy, theta, denoiser.predict(noisy, theta, encoded)
                    )
                    target = cos * noise_of_sign - sin * x
                    products += (target * out * denoiser.mask).flatten(1).sum(1) / 2
                    powers += out.square().flatten(1).sum(1) / 2
                    targets += (target * denoiser.mask).square().flatten(1).sum(1) / 2
                bands[band] += [
                    (number, float(p), float(q), float(t))
                    for p, q, t in zip(products, powers, targets, strict=True)
                ]
    for band, rows in enumerate(bands):
        table = np.array(rows)
        groups = table[:, 0] if len(validation.participants) > 2 else np.arange(len(table))
        means = np.array([table[groups == g, 1].mean() for g in np.unique(groups)])
        power, whole = table[:, 2].mean(), table[:, 3].mean()
        error = float(means.std(ddof=1)) / len(means) ** 0.5 if len(means) > 1 else 0.0
        product = float(means.mean())
        if power > 0 and product > CAUTION * error:
            certain = 1 - (CAUTION * error / product) ** 2
            share = min(certain * product / power, 1.0)
            if (2 * product - share * power) * share >= least_gain * whole:
                gate[band] = share
    denoiser.gate.copy_(before)
    return gate.to(device)


@torch.no_grad()
def validation_gain(denoiser: Denoiser, validation: ValidationWindows) -> float:
    """Average over angles the loss that the network takes away, each with its best gate."""
    device, total = denoiser.mask.device, 0.0
    sums, count = np.zeros((len(WATCHED_ANGLES), 2)), 0
    for number in range(len(validation.participants)):
        for latents, noise, condition, _ in validation.batches(number):
            x, e, c = latents.to(device), noise.to(device), condition.to(device)
            encoded, count = denoiser.encode(c), count + 1
            for row, angle in enumerate(WATCHED_ANGLES):
                theta = torch.full((len(x),), angle, device=device)
                noisy = math.cos(angle) * x + math.sin(angle) * e
                out = denoiser.as_velocity(noisy, theta, denoiser.predict(noisy, theta, encoded))
                target = math.cos(angle) * e - math.sin(angle) * x
                sums[row] += [
                    float((target * out)[..., denoiser.mask].mean()),
                    float(out.square()[..., denoiser.mask].mean()),
                ]
    for product, power in sums / max(count, 1):
        share = min(max(product / max(power, 1e-12), 0.0), 1.0)
        total += 2 * share * product - share**2 * power
    return float(total) / len(WATCHED_ANGLES)  # a training state holds plain numbers


@torch.no_grad()
def measure_skill(
    denoiser: Denoiser,
    windows: ValidationWindows,
    mean_of: Callable[[int], Tensor],
    evoked_of: Callable[[int], Tensor],
    title: str = "Skill",
) -> list[Skill]:
    """Measure the gain of noise level, response model and network on unseen participants.

    Parameters
    ----------
    denoiser : Denoiser
        With its gate.
    windows : ValidationWindows
        Of those participants; their `runs` hold no responses, which nobody knows of them.
    mean_of : callable
        Returns the response model's prediction for a run by its index, in units of the
        standardised latents, (N, C, x, y, z).
    evoked_of : callable
        Returns what a run's events evoked in it, in the same form.
    title : str
        Name of the progress bar.

    Returns
    -------
    list of Skill
        By angle and part; of the network over noise level and the run's own response, of noise
        level and response over nothing.
    """
    mask, device = denoiser.mask, denoiser.mask.device
    index_of: dict[str, list[int]] = {label: [] for label in windows.participants}
    for index, label in enumerate(windows.runs.participants):
        index_of[label].append(index)
    losses = np.zeros((len(windows.participants), len(ANGLES), 6))
    for number, label in enumerate(track(windows.participants, desc=title, unit="participant")):
        count, mine = 0, index_of[label]
        means, evoked = ([of(index) for index in mine] for of in (mean_of, evoked_of))
        for latents, noise, condition, places in windows.batches(number):
            level = torch.stack([windows.runs.scale(mine[r], s, windows.length) for r, s in places])
            level = level.to(device)
            mean, own = (
                torch.stack([of[r][s : s + windows.length] for r, s in places]).to(device) / level
                for of in (means, evoked)
            )
            u, e = latents.to(device), noise.to(device)
            encoded = denoiser.encode(condition.to(device))
            for row, angle in enumerate(ANGLES):
                cos, sin = math.cos(angle), math.sin(angle)
                noisy, target = cos * u + sin * e, cos * e - sin * u
                spread = level**-2
                k = cos * sin * (1 - spread) / (spread * cos**2 + sin**2)
                theta = torch.full((len(u),), angle, device=device)
                residual, rest = noisy - cos * mean, noisy - cos * own
                network = denoiser.as_velocity(rest, theta, denoiser.predict(rest, theta, encoded))
                zero = torch.zeros_like(u)
                predictions = (
                    k * noisy, zero, -sin * mean + k * residual, -sin * mean, -sin * own,
                    -sin * own + network,
                )  # fmt: skip
                losses[number, row] += [_mean_square(target - p, mask) for p in predictions]
            count += 1
        losses[number] /= max(count, 1)
    parts = (("noise level", 0, 1), ("response", 0, 2), ("noise level + response", 0, 3),
             ("backbone", 4, 5))  # fmt: skip
    return [
        _skill(angle, part, losses[:, row, base] - losses[:, row, column])
        for row, angle in enumerate(ANGLES)
        for part, base, column in parts
    ]


def _skill(theta: float, part: str, gains: np.ndarray) -> Skill:
    """Average the participants' gains, with a t-interval."""
    mean, half = float(gains.mean()), math.nan
    if len(gains) > 1:
        quantile = float(student.ppf(0.975, len(gains) - 1))
        half = quantile * float(gains.std(ddof=1)) / len(gains) ** 0.5
    return Skill(theta, part, mean, mean - half, mean + half)
