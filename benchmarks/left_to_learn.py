"""How much of held-out participants' noise is left for a network to learn.

A run starts from noise ε that is inferred for its participant. Were the noise u of real runs
Gaussian and of the same covariance, the best velocity cos θ · ε − sin θ · u, given
cos θ · u + sin θ · ε, would be zero: no network could gain anything. This script measures what a
network could gain at most by

- "modes", "remainder": a linear prediction in time, fitted to the other held-out participants, one
  for each band of the modes' rank, and one for what the modes leave;
- "own": the same, fitted to the participant's own held-out runs, which no network sees;
- "frames": knowing how loud each frame is, beside what the model knows of it. Of noise that is
  drawn from the model, this is subtracted.

In shares of the loss, of which noise has 1; intervals are t-intervals over participants.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from results import header, interval
from torch import Tensor

import fmrisynth
from fmrisynth.model.model import Model
from fmrisynth.model.noise.autocovariance import factors_in_time
from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.training.held_out import held_out_windows
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.skill import ANGLES, ValidationWindows
from fmrisynth.training.stored_noise import StoredNoise

BANDS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # of the modes' rank
DRAWS = 8  # windows of noise, for what the modes leave


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="BIDS dataset that the model was trained on")
    parser.add_argument("model", type=Path, help="its model directory")
    return parser.parse_args()


def windows_of(values: Tensor, length: int) -> Tensor:
    """Cut (N, D) into windows that overlap by half, (D·W, length)."""
    return values.unfold(0, length, length // 2).reshape(-1, length)


def moments(rows: Tensor) -> Tensor:
    """Average the outer products of rows (M, T), (T, T)."""
    return rows.T @ rows / len(rows)


class Participant:
    """Accumulate the covariances in time of real and of inferred noise, band by band."""

    def __init__(self, length: int) -> None:
        shape = (len(BANDS), length, length)
        self.length, self.real, self.model = length, torch.zeros(shape), torch.zeros(shape)
        self.frames: list[Tensor] = []
        self.drawn_frames: list[Tensor] = []
        self.runs = 0

    def add(self, noise: Tensor, model: ModalNoise) -> None:
        """Add a run's noise (N, D), and the noise that was inferred for it."""
        self.runs += 1
        axes = model.modes.flatten(1).T  # D K
        mixed = axes if model.axes is None else axes @ model.axes
        lags = model.window_autocovariance
        order = lags[:, 0].argsort(descending=True)
        factors = factors_in_time(lags[order], self.length)
        courses, covariance = (noise @ mixed)[:, order], factors @ factors.mT
        for band, (first, last) in enumerate(pairwise(BANDS)):
            part = courses[:, first:last]
            if not part.shape[1]:
                continue
            rows = windows_of(part, self.length)
            # moments count as sums over the values of a frame, as the loss does
            self.real[band] += moments(rows) * part.shape[1]
            self.model[band] += covariance[first:last].sum(0)
        rest = noise - (noise @ axes) @ axes.T
        self.real[-1] += moments(windows_of(rest, self.length)) * rest.shape[1]
        generator = torch.Generator().manual_seed(self.runs)
        drawn = []
        for number in range(DRAWS):
            window = model.sample_window(self.length, generator, number)
            flat = window[..., model.mask].flatten(1)
            left = flat - (flat @ axes) @ axes.T
            self.model[-1] += moments(left.T) * left.shape[1] / DRAWS
            drawn.append(left.square().mean(1))
        level = torch.cat(drawn).mean()
        self.frames.append(rest.square().mean(1) / rest.square().mean())
        self.drawn_frames.append(torch.cat(drawn) / level)

    def gain(self, maps: Tensor, angle: float, width: int) -> Tensor:
        """Compute what linear maps (bands, T, T) take from this participant's loss, (bands,)."""
        cos, sin = math.cos(angle), math.sin(angle)
        product = cos * sin * (self.model - self.real) / self.runs
        power = (cos**2 * self.real + sin**2 * self.model) / self.runs
        gain = 2 * (maps * product).sum((1, 2)) - ((maps @ power) * maps).sum((1, 2))
        return gain / (width * self.length)

    def frame_gain(self, angle: float) -> float:
        """Compute what knowing the level of frames takes from the loss, less that of chance."""
        cos, sin = math.cos(angle), math.sin(angle)

        def gain(levels: list[Tensor]) -> float:
            a = torch.cat(levels)
            return float(((cos * sin * (1 - a)) ** 2 / (cos**2 * a + sin**2)).mean())

        return gain(self.frames) - gain(self.drawn_frames)


def best(participants: list[Participant], angle: float) -> Tensor:
    """Fit the linear maps (bands, T, T) that take most from the loss of some participants."""
    cos, sin = math.cos(angle), math.sin(angle)
    real = sum((p.real / p.runs for p in participants), torch.zeros(()))
    model = sum((p.model / p.runs for p in participants), torch.zeros(()))
    power = cos**2 * real + sin**2 * model
    ridge = 1e-6 * power.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-12
    power = power + ridge * torch.eye(power.shape[1])
    return cos * sin * torch.linalg.solve(power, model - real).mT


def participants_of(
    windows: ValidationWindows, evoked_of: Callable[[int], Tensor]
) -> Iterator[Participant]:
    """Yield the held-out participants with all of their runs."""
    runs = windows.runs
    for label in windows.participants:
        found = Participant(windows.length)
        for index, participant in enumerate(runs.participants):
            if participant != label:
                continue
            length = len(runs.latents[index])
            noise = runs.noise(index) - evoked_of(index) / runs.scale(index, 0, length)
            model = windows.noise.models[index]
            model = model.load() if isinstance(model, StoredNoise) else model
            if not isinstance(model, ModalNoise):
                raise SystemExit("the model's noise has no modes; expected denoiser.noise=modal")
            found.add(noise[..., runs.mask].flatten(1), model)
        yield found


def main() -> None:
    options = arguments()
    dataset = fmrisynth.find_runs(options.dataset)
    model = Model.load(options.model)
    seed = int(model.info.provenance["seed"])
    plan = TrainingPlan(model.info.config, "", seed, None, None, 1)
    fabric = make_fabric("cpu", "32-true", seed)
    with TemporaryDirectory() as folder:
        work = Path(folder)
        found = held_out_windows(model, dataset.runs, plan, work, work / "latents", fabric)
        if found is None:
            raise SystemExit(f"{options.model} has no held-out participants in {options.dataset}")
        windows, _, evoked_of = found
        people = list(participants_of(windows, evoked_of))
    width = windows.runs.n_values
    print(header(), "\n")
    print("| θ | modes | remainder | own | frames |\n|---|---|---|---|---|")
    for angle in ANGLES[:-1]:
        rows = []
        for number, person in enumerate(people):
            others = [p for i, p in enumerate(people) if i != number]
            linear = person.gain(best(others, angle), angle, width)
            own = person.gain(best([person], angle), angle, width)
            values = linear[:-1].sum(), linear[-1], own.sum(), person.frame_gain(angle)
            rows.append([float(v) for v in values])
        cells = [interval(list(column), 4) for column in np.array(rows).T]
        print(f"| {angle:.2f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
