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

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

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

log = logging.getLogger(__name__)


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
                condition = runs.conditions[run].window(start, self.length)
                conditions.append(replace(condition, mode_sd=noise.mode_sd(run)))
                places.append((run, start))
                noises.append(noise.draw(run, self.length, generator))
            yield torch.stack(latents), torch.stack(noises), collate(conditions), places


def _mean_square(values: Tensor, mask: Tensor) -> float:
    """Average the square over everything inside the brain."""
    return float(values.square()[..., mask].mean())


@torch.no_grad()
def support(
    denoiser: Denoiser,
    validation: ValidationWindows,
    least_gain: float = 0.0,
    *,
    cautious: bool = True,
) -> dict[str, Tensor]:
    """Find the shares of the velocity that validation participants support, band by band.

    The loss of g · v̂ is least at g = <v, v̂> / <v̂, v̂>. With s the standard error of <v, v̂> over
    participants (over windows, where there are fewer than three participants), g is multiplied
    by 1 − (`CAUTION` · s / <v, v̂>)², or 0 where that is less: what may be chance counts for
    nothing, and what is certain hardly loses size. Each window is seen with ε and with −ε:
    near θ = 0 the velocity is ε almost alone, which cancels where v̂ follows the condition. The
    backbone is asked for what the mode head, with its gate, leaves.

    Parameters
    ----------
    denoiser : Denoiser
        The network; its gates stay as they were.
    validation : ValidationWindows
        Windows of participants whom it has not learned from.
    least_gain : float
        Share of the velocity's power that g · v̂ has to explain in a band, whose support is 0
        otherwise.
    cautious : bool
        Whether g is multiplied so. Where it is not, what is not chance keeps the size that
        participants say on average.

    Returns
    -------
    dict of str to Tensor of shape (GATE_BANDS,)
        In [0, 1], by the name of the gate.
    """
    names, width = _gates(denoiser), math.pi / 2 / GATE_BANDS
    angles = [(band + 0.5) * width for band in range(GATE_BANDS)]
    gates = {name: torch.zeros(GATE_BANDS) for name in names}
    products, participants = _products(denoiser, validation, angles, (1, -1))
    of_few = len(validation.participants) < 3
    groups = np.arange(len(participants)) if of_few else participants
    for band, of_band in enumerate(products):
        least, shares = least_gain * float(of_band[:, 0, 0].mean()), list[float]()
        for part, name in enumerate(names, start=1):
            rest = _with_the_rest(of_band, shares)
            means = np.array([rest[groups == g].mean() for g in np.unique(groups)])
            power = float(of_band[:, part, part].mean())
            shares.append(_supported(means, power, least, cautious))
            gates[name][band] = shares[-1]
    return {name: gate.to(denoiser.mask.device) for name, gate in gates.items()}


def _supported(means: np.ndarray, power: float, least: float, cautious: bool) -> float:
    """Find the share of a prediction from its products with the target, participant by participant.

    It is 0 where less than `least` of the target's power would be explained.
    """
    product = float(means.mean())
    error = float(means.std(ddof=1)) / len(means) ** 0.5 if len(means) > 1 else 0.0
    if power <= 0 or product <= CAUTION * error:
        return 0.0
    certain = 1 - (CAUTION * error / product) ** 2 if cautious else 1.0
    share = min(certain * product / power, 1.0)
    return share if (2 * product - share * power) * share >= least else 0.0


def _with_the_rest(products: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Multiply the next part with what the parts before it, with their shares, leave of the target.

    Parameters
    ----------
    products : ndarray of shape (..., 1 + P, 1 + P)
        As `_products` gives them.
    shares : sequence of float
        Of the parts before it.
    """
    part = len(shares) + 1
    rest: np.ndarray = products[..., part, :part] @ np.array([1.0, *(-s for s in shares)])
    return rest


def _gates(denoiser: Denoiser) -> list[str]:
    """Name the gates in the order in which they are set."""
    return ["gate"] if denoiser.mode_head is None else ["mode_gate", "gate"]


def _products(
    denoiser: Denoiser,
    validation: ValidationWindows,
    angles: Sequence[float],
    signs: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Multiply the velocities of windows with what each part predicts of them, without gates.

    Returns
    -------
    products : ndarray of shape (A, W, 1 + P, 1 + P)
        For each angle and window, of the target and the P parts, in the order of `_gates`,
        averaged over signs of the noise.
    participants : ndarray of shape (W,)
        Number of each window's participant.
    """
    mask, found, participants = denoiser.mask, [], []
    for number in range(len(validation.participants)):
        for latents, noise, condition, _ in validation.batches(number):
            x, e, c = (latents.to(mask.device), noise.to(mask.device), condition.to(mask.device))
            encoded, of_batch = denoiser.encode(c), []
            for angle in angles:
                theta = torch.full((len(x),), angle, device=mask.device)
                cos, sin, gram = math.cos(angle), math.sin(angle), torch.zeros(())
                for sign in signs:
                    noisy = cos * x + sign * sin * e
                    vectors = [cos * sign * e - sin * x]
                    if denoiser.mode_head is not None:
                        vectors.append(denoiser.mode_velocity(noisy, theta, encoded))
                    vectors.append(denoiser.ungated(noisy, theta, encoded))
                    flat = torch.stack(vectors, dim=1)[..., mask].flatten(2).float()
                    with torch.autocast(mask.device.type, enabled=False):
                        gram = gram + (flat @ flat.mT).cpu() / len(signs)
                of_batch.append(gram.double().numpy())
            found.append(np.stack(of_batch))
            participants += [number] * len(x)
    return np.concatenate(found, axis=1), np.array(participants)


@torch.no_grad()
def validation_gain(denoiser: Denoiser, validation: ValidationWindows) -> float:
    """Average over angles the loss that the network takes away, each part with its best gate."""
    products, _ = _products(denoiser, validation, WATCHED_ANGLES, (1,))
    products = products.mean(axis=1) / (validation.length * validation.runs.n_values)
    total = 0.0
    for of_angle in products:
        shares: list[float] = []
        for part in range(1, len(of_angle)):
            rest, power = float(_with_the_rest(of_angle, shares)), float(of_angle[part, part])
            share = min(max(rest / max(power, 1e-12), 0.0), 1.0)
            total += 2 * share * rest - share**2 * power
            shares.append(share)
    return total / len(products)  # a training state holds plain numbers


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
                network = denoiser.velocity(rest, theta, encoded)
                zero = torch.zeros_like(u)
                predictions = (
                    k * noisy, zero, -sin * mean + k * residual, -sin * mean, -sin * own,
                    -sin * own + network,
                )  # fmt: skip
                losses[number, row] += [_mean_square(target - p, mask) for p in predictions]
            count += 1
        losses[number] /= max(count, 1)
    for angle, gains in zip(ANGLES, (losses[..., 4] - losses[..., 5]).T, strict=True):
        log.info(
            "network at %.2f: %d of %d participants gain, median %+.4f (%+.4f to %+.4f)",
            angle, (gains > 0).sum(), len(gains), np.median(gains), gains.min(), gains.max(),
        )  # fmt: skip
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
