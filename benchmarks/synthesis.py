"""One whole run, read, made and written: this project against BrainIAK's fmrisim.

The default is the studyforrest grid (46 × 55 × 46 voxels, 156 volumes); ``--hcp``
is 91 × 109 × 91 × 284, by sampler and steps, where fmrisim is left out. Each run
is made in a process of its own, whose peak memory and CPU time (of all threads;
it tells more than the clock on a busy machine) are shown; all take turns. The
model is not trained, which changes neither its time nor its memory. fmrisim is
that of `fmrisynth.baselines.fmrisim`, with the noise estimated beforehand: it is
timed with the baseline's rounds of fitting and with none.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from cases import read_run, untrained_model, voxels, write_run
from measuring import GIB, in_child, memory_now, peak_memory, spread

from fmrisynth.baselines.fmrisim import (
    FIT_ITERATIONS,
    Fmrisim,
    TrainingNoise,
    estimate_noise,
    simulate,
)
from fmrisynth.baselines.group_response import GroupResponse, fit_group_response
from fmrisynth.bids.derivatives import write_synthetic_run
from fmrisynth.bids.events import read_events
from fmrisynth.config.codec import override
from fmrisynth.config.model import SamplingConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.errors import UsageError
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.synthesis import synthesiser as synthesis
from fmrisynth.synthesis.run_statistics import SiblingReader

STUDYFORREST = ((46, 55, 46), 156, 2.0)
HCP = ((91, 109, 91), 284, 0.72)
HIGH_PASS = 1 / 128
STAGES = ("read", "sampler", "decoder", "noise and merge", "write")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hcp", action="store_true", help="91 × 109 × 91 × 284 instead")
    parser.add_argument("--shape", nargs=4, type=int, metavar="N", help="X Y Z T of the run")
    parser.add_argument("--preset", default="demo", choices=PRESETS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--sampling", nargs="+", metavar="SAMPLER:STEPS",
        help="default: the preset's own, and for --hcp three samplers",
    )  # fmt: skip
    parser.add_argument("--precision", choices=("auto", "32-true", "bf16-mixed"), default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--rounds", nargs="*", type=int, default=[FIT_ITERATIONS, 0],
        help="fmrisim's rounds of fitting, each timed; none leaves fmrisim out",
    )  # fmt: skip
    return parser.parse_args()


@dataclass
class Made:
    """What one process reports of one run."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu: float = 0
    peak: int = 0
    before: int = 0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @contextmanager
    def timed(self, stage: str) -> Any:
        started, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[stage] = time.perf_counter() - started
        self.cpu += time.process_time() - cpu

    def timing(self, call: Callable[..., Any], stage: str, device: str) -> Callable[..., Any]:
        def timed(*values: Any) -> Any:
            with self.timed(stage):
                result = call(*values)
                if device == "cuda":
                    torch.cuda.synchronize()
            return result

        return timed


def make_ours(
    folder: Path, preset: str, settings: Sequence[str], sampling: SamplingConfig, device: str,
    precision: str,
) -> Made:  # fmt: skip
    """Make one run with this project, timing its parts."""
    config = override(PRESETS[preset], dict(item.split("=", 1) for item in settings))
    run, made = read_run(folder), Made()
    fabric = make_fabric(device, precision, 0)
    model = untrained_model(config, run).to(fabric.device)
    made.before = memory_now(device)

    synthesiser = synthesis.Synthesiser(model, sampling, fabric.autocast)
    with made.timed("read"):
        carrier = SiblingReader(model, None, None).read(run)[0]
        events = read_events(run.events)
    inside = Made()
    synthesis.sample_latents = inside.timing(synthesis.sample_latents, "sampler", device)
    synthesiser.decode = inside.timing(synthesiser.decode, "decoder", device)  # type: ignore[method-assign]
    with made.timed("noise and merge"):
        data = synthesiser.synthesise(run, carrier, carrier.noise_sd, events, seed=0, participant=0)
    made.seconds["noise and merge"] -= inside.total
    made.seconds |= inside.seconds
    _write(made, folder, data, carrier.mask)
    made.peak = peak_memory(device)
    return made


def make_fmrisim(
    folder: Path, response: GroupResponse, noise: TrainingNoise, iterations: int
) -> Made:
    """Make one run with fmrisim."""
    run, made = read_run(folder), Made(before=memory_now("cpu"))
    with made.timed("simulate"):
        data, carrier = simulate(Fmrisim(response, (noise,), iterations), run, 0)
    _write(made, folder, data, carrier.mask)
    made.peak = peak_memory("cpu")
    return made


def _write(made: Made, folder: Path, data: Any, mask: Any) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as out, made.timed("write"):
        write_synthetic_run(Path(out), read_run(folder), data, mask, provenance={})


def estimate(folder: Path) -> tuple[GroupResponse, TrainingNoise, float]:
    """Fit fmrisim to the run; the seconds that its estimate of the noise takes."""
    run = read_run(folder)
    response = fit_group_response([run], HIGH_PASS)
    started = time.perf_counter()
    noise = estimate_noise(run, response, 0)
    return response, noise, time.perf_counter() - started


def samplings(options: argparse.Namespace) -> list[SamplingConfig]:
    config = override(PRESETS[options.preset], dict(item.split("=", 1) for item in options.set))
    own = config.sampling
    named = options.sampling or (["euler:10", "dpmpp-2m:20", "ddim:50"] if options.hcp else [])
    pairs = [item.split(":") for item in named]
    return [replace(own, sampler=name, steps=int(steps)) for name, steps in pairs] or [own]


def report(name: str, runs: Sequence[Made]) -> float:
    """Print what one way of making the run took; its median."""
    totals = [made.total for made in runs]
    peak, before = max(made.peak for made in runs), max(made.before for made in runs)
    print(
        f"  {name:24s} {spread(totals)} s, CPU {statistics.median(m.cpu for m in runs):.1f} s, "
        f"peak {peak / GIB:.2f} GiB "
        f"({before / GIB:.2f} before the run)"
    )
    return statistics.median(totals)


def report_stages(runs: Sequence[Made]) -> None:
    total = sum(made.total for made in runs)
    shares = [
        f"{stage} {statistics.median(made.seconds[stage] for made in runs):.2f} s "
        f"({sum(made.seconds[stage] for made in runs) / total:.0%})"
        for stage in STAGES
    ]
    print("    " + ", ".join(shares))


def main() -> None:
    options = arguments()
    shape, n_volumes, t_r = HCP if options.hcp else STUDYFORREST
    if options.shape:
        shape, n_volumes = tuple(options.shape[:3]), options.shape[3]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = in_child(write_run, folder, shape, n_volumes, t_r)
        print(
            f"{shape} × {n_volumes} volumes, {voxels(run):,} brain voxels, preset "
            f"{options.preset} {' '.join(options.set)}, {options.precision} on {options.device}, "
            f"{torch.get_num_threads()} threads"
        )
        ways: dict[str, tuple[Callable[..., Made], tuple[Any, ...]]] = {}
        for sampling in samplings(options):
            label = f"ours, {sampling.sampler}, {sampling.steps} steps"
            common = (options.preset, options.set, sampling, options.device, options.precision)
            ways[label] = make_ours, (folder, *common)
        if options.rounds and not options.hcp:
            ways |= fmrisim_ways(folder, options.rounds)
        made: dict[str, list[Made]] = {label: [] for label in ways}
        for _ in range(options.repeats):
            for label, (function, values) in ways.items():  # in turn: a busy machine slows all
                made[label].append(in_child(function, *values))
                shown = made[label][-1]
                print(f"    {label}: {shown.total:.1f} s, CPU {shown.cpu:.1f} s", flush=True)
        medians = {}
        for label, runs in made.items():
            medians[label] = report(label, runs)
            if label.startswith("ours"):
                report_stages(runs)
        ours = next(iter(medians))
        for label in list(medians)[1:]:
            cpu = [statistics.median(m.cpu for m in made[name]) for name in (label, ours)]
            print(
                f"  {label} / {ours} = {medians[label] / medians[ours]:.2f} "
                f"(CPU time {cpu[0] / cpu[1]:.2f})"
            )


def fmrisim_ways(
    folder: Path, rounds: Sequence[int]
) -> dict[str, tuple[Callable[..., Made], tuple[Any, ...]]]:
    """Return fmrisim with each number of rounds, where BrainIAK is installed."""
    try:
        response, noise, spent = in_child(estimate, folder)
    except UsageError as error:
        print(f"  fmrisim is left out: {error}")
        return {}
    print(f"  fmrisim's estimate of the noise, not counted below: {spent:.1f} s")
    return {
        f"fmrisim, {count} rounds": (make_fmrisim, (folder, response, noise, count))
        for count in rounds
    }


if __name__ == "__main__":
    main()
