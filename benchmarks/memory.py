"""Peak memory of one training step by size, and the largest that fits.

A step of the diffusion's learner: forward, backward, AdamW, averaged weights, in
micro-batches whose gradients are accumulated. Each size has a
process of its own; on the CPU its peak is what was resident, interpreter and
libraries included, on a GPU what torch had allocated. Sizes for which the
machine lacks memory are not run; their peak is drawn from the line through
those that were.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import GIB, in_child, memory_of_machine, peak_memory, size

from fmrisynth.bids.dataset import Run
from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS
from fmrisynth.model.denoiser.conditioning import RunCondition, Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.training.denoiser import DiffusionLearner
from fmrisynth.training.window_noise import WindowNoise
from fmrisynth.training.windows import LatentRuns, Windows

TASKS = ("emotion", "gambling", "language", "motor", "relational", "social", "wm")
VOCABULARY = Vocabulary(tuple((task, "active") for task in TASKS), TASKS, ("LR", "RL"), (), 28)
SCALED = tuple(name for name in PRESETS if name.startswith("scaled-"))
BYTES_PER_PARAMETER = 20  # float32 weight, gradient, two moments, average
RESERVE = 1.25  # of what is free, so that the machine does not start to swap or kill


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=SCALED, choices=PRESETS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--grid", type=int, default=24, help="latent voxels along each axis")
    parser.add_argument(
        "--accumulate", nargs="+", type=int, default=[1, 2], help="micro-batches of a step"
    )
    parser.add_argument("--micro-batch", type=int, default=1, help="windows at once")
    parser.add_argument("--precision", default="bf16-mixed", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limits", nargs="+", type=float, default=[24, 40], help="GiB")
    return parser.parse_args()


@dataclass
class Measured:
    """What one process reports."""

    parameters: int
    peak: int
    seconds: float


def denoiser_of(preset: str, settings: Sequence[str], grid: int) -> Denoiser:
    config = override(PRESETS[preset], dict(item.split("=", 1) for item in settings))
    mask = torch.ones(grid, grid, grid, dtype=torch.bool)
    return Denoiser(
        config.denoiser, VOCABULARY, config.autoencoder.latent_channels, mask,
        config.autoencoder.factor,
    )  # fmt: skip


def one_step(
    preset: str, settings: Sequence[str], grid: int, batches: tuple[int, int], device: str,
    precision: str,
) -> Measured:  # fmt: skip
    """Make two steps, so that the optimiser's state is there in the second.

    `batches` are their number and their windows.
    """
    config = override(PRESETS[preset], dict(item.split("=", 1) for item in settings))
    fabric = make_fabric(device, precision, 0)
    denoiser = denoiser_of(preset, settings, grid)
    frames, channels = config.denoiser.n_frames, config.autoencoder.latent_channels
    edge, inside = grid * config.autoencoder.factor, denoiser.mask.clone()
    run = Run(
        entities={"sub": "01", "task": TASKS[0]}, bold=Path("none"), mask=None, events=Path("none"),
        space=None, resolution=None, t_r=0.72, start_time=0.0, shape=(edge, edge, edge),
        n_volumes=2 * frames, affine=np.eye(4), phase_encoding="LR",
    )  # fmt: skip
    events = pd.DataFrame({"onset": [1.0], "duration": [5.0], "trial_type": ["active"]})
    anatomy = np.zeros((2, edge, edge, edge), np.float32)
    condition = RunCondition(run, events, anatomy, VOCABULARY, 2 * frames, 1 / 128)
    latents = np.zeros((2 * frames, channels, grid, grid, grid), np.float16)
    levels = [torch.ones(inside.shape)]
    runs = LatentRuns([latents], [condition], levels, ["01"], LatentSpace(channels, inside))
    noise = WhiteNoise(channels, inside)
    learner = DiffusionLearner(
        fabric,
        denoiser,
        replace(
            config.diffusion_training, batch_size=batches[0] * batches[1], micro_batch=batches[1]
        ),
        Windows(runs, frames, 0.5),
        WindowNoise([noise], ["01"], noise),
        0,
    )
    spent = 0.0
    for step in range(2):
        started = time.perf_counter()
        learner.step(step, step / 2)
        if device == "cuda":
            torch.cuda.synchronize()
        spent = time.perf_counter() - started
    return Measured(size(denoiser), peak_memory(device), spent)


def parameters_of(preset: str, settings: Sequence[str], grid: int) -> int:
    with torch.device("meta"):
        return size(denoiser_of(preset, settings, grid))


def main() -> None:
    options = arguments()
    print(
        f"latents {options.grid}³, {options.precision} on {options.device}, "
        f"{torch.get_num_threads()} threads"
    )
    counts = {name: parameters_of(name, options.set, options.grid) for name in options.presets}
    peaks: dict[str, float] = {}
    for preset, count in counts.items():
        expected = trend(counts, peaks)(count) if len(peaks) > 1 else BYTES_PER_PARAMETER * count
        free = memory_of_machine(options.device)
        if expected * RESERVE > free:
            print(
                f"  {preset}, {count / 1e6:.1f}M: not run, {free / GIB:.1f} GiB are free and about "
                f"{expected / GIB:.1f} are needed"
            )
            continue
        for count_of in options.accumulate:
            batches = count_of, options.micro_batch
            made: Measured = in_child(
                one_step, preset, options.set, options.grid, batches, options.device,
                options.precision,
            )  # fmt: skip
            peaks[preset] = max(peaks.get(preset, 0), made.peak)
            print(
                f"  {preset}, {count / 1e6:.1f}M: peak {made.peak / GIB:.2f} GiB, "
                f"{made.seconds:.1f} s a step of {batches[0]} × {batches[1]} windows",
                flush=True,
            )
    report(options, counts, peaks)


def trend(counts: dict[str, int], peaks: dict[str, float]) -> Callable[[float], float]:
    """Line of peak memory over parameters."""
    slope, offset = np.polyfit([counts[name] for name in peaks], list(peaks.values()), 1)
    return lambda count: float(slope * count + offset)


def report(options: argparse.Namespace, counts: dict[str, int], peaks: dict[str, float]) -> None:
    """Print the trend, and the largest size within each limit."""
    line = None
    if len(peaks) > 1:
        line = trend(counts, peaks)
        slope = line(1) - line(0)
        print(f"  trend: {line(0) / GIB:.2f} GiB + {slope:.1f} bytes a parameter")
    for limit in options.limits:
        fitting = {
            name: name in peaks
            for name, count in counts.items()
            if peaks.get(name, line(count) if line else np.inf) <= limit * GIB
        }
        largest = max(fitting, key=lambda name: counts[name], default=None)
        how = (
            "" if largest is None else (" (measured)" if fitting[largest] else " (from the trend)")
        )
        print(f"  largest of these within {limit:g} GiB: {largest or 'none'}{how}")


if __name__ == "__main__":
    main()
