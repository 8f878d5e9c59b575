"""One whole run, read, made and written: this project against BrainIAK's fmrisim.

What a run says of its participant is read with it, so that the synthetic run has
the participant's own response and noise; it is written with confounds. The default
is the studyforrest grid (46 × 55 × 46 voxels, 156 volumes); ``--hcp`` is
91 × 109 × 91 × 284, by sampler and steps, where fmrisim is left out. Each run is
made in a process of its own, whose peak memory and CPU time (of all threads; it
tells more than the clock on a busy machine) are shown; all take turns. The model is
not trained, which changes neither its time nor its memory. fmrisim is that of
`fmrisynth.baselines.fmrisim`, with the noise estimated beforehand: it is timed with
the baseline's rounds of fitting and with none.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from cases import read_run, untrained_model, voxels, write_run
from measuring import (
    GIB,
    head,
    in_child,
    machine,
    memory_now,
    paired_ratio,
    peak_memory,
    row,
    spread,
)

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
from fmrisynth.preprocess.carrier import removed_basis
from fmrisynth.preprocess.tissues import template_tissue_masks
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.synthesis import synthesiser as synthesis
from fmrisynth.synthesis.confounds import confounds_of
from fmrisynth.synthesis.individuals import deviation_of, noise_of
from fmrisynth.synthesis.motion import motion_of
from fmrisynth.synthesis.run_statistics import SiblingReader

STUDYFORREST = ((46, 55, 46), 156, 2.0)
HCP = ((91, 109, 91), 284, 0.72)
HIGH_PASS = 1 / 128
STAGES = (
    "read", "statistics", "own response", "sampler", "decoder", "noise and merge", "confounds",
    "write",
)  # fmt: skip


def run_parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of the options that choose a run and a model."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--hcp", action="store_true", help="91 × 109 × 91 × 284 instead")
    parser.add_argument("--shape", nargs=4, type=int, metavar="N", help="X Y Z T of the run")
    parser.add_argument("--preset", default="demo", choices=PRESETS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    return parser


def size_of(options: argparse.Namespace) -> tuple[tuple[int, int, int], int, float]:
    """Return shape, volumes and repetition time (s) of the run that the options choose."""
    shape, n_volumes, t_r = HCP if options.hcp else STUDYFORREST
    if options.shape:
        x, y, z, n_volumes = options.shape
        shape = (x, y, z)
    return shape, n_volumes, t_r


def arguments() -> argparse.Namespace:
    parser = run_parser(__doc__)
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
    inference = model.response.inference()
    reader, parts = SiblingReader(model, inference, None), Made()
    reader._reduce = parts.timing(reader._reduce, "statistics", device)  # type: ignore[method-assign]
    with made.timed("read"):
        carrier, of_run = reader.read(run)
        events = read_events(run.events)
    assert of_run is not None
    made.seconds["read"] -= parts.total
    template_tissue_masks(run, carrier.mask)  # resampled once in a call of the program
    known = {Path("another run"): of_run}
    with made.timed("own response"):
        deviation = deviation_of(run.bold, "own", known, inference, 0)
        removed = removed_basis(run.n_volumes, run.t_r, config.preprocess.removed_high_pass)
        noise = noise_of(run.bold, "own", known, model.noise, removed)
    inside = Made()
    synthesis.sample_latents = inside.timing(synthesis.sample_latents, "sampler", device)
    synthesiser.decode = inside.timing(synthesiser.decode, "decoder", device)  # type: ignore[method-assign]
    with made.timed("noise and merge"):
        data = synthesiser.synthesise(
            run, carrier, carrier.noise_sd, events, 0, 0, deviation, noise
        )
    made.seconds["noise and merge"] -= inside.total
    made.seconds |= parts.seconds | inside.seconds
    with made.timed("confounds"):
        motion = motion_of(run, model.motion, (0, 0), own=True)
        confounds = confounds_of(run, data, carrier.mask, motion, own=True)
    _write(made, folder, data, carrier.mask, confounds)
    made.peak = peak_memory(device)
    return made


def make_fmrisim(
    folder: Path, response: GroupResponse, noise: TrainingNoise, iterations: int
) -> Made:
    """Make one run with fmrisim."""
    run, made = read_run(folder), Made(before=memory_now("cpu"))
    with made.timed("simulate"):
        data, carrier = simulate(Fmrisim(response, (noise,), iterations), run, 0)
    _write(made, folder, data, carrier.mask, None)
    made.peak = peak_memory("cpu")
    return made


def _write(made: Made, folder: Path, data: Any, mask: Any, confounds: Any) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as out, made.timed("write"):
        run = read_run(folder)
        write_synthetic_run(Path(out), run, data, mask, provenance={}, confounds=confounds)


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


def report(label: str, runs: Sequence[Made]) -> str:
    """Row of the table of what each way of making the run took."""
    peak, before = max(made.peak for made in runs), max(made.before for made in runs)
    cpu = statistics.median(made.cpu for made in runs)
    shown = spread([made.total for made in runs])
    return row(label, shown, f"{cpu:.1f}", f"{peak / GIB:.2f}", f"{before / GIB:.2f}")


def stages(made: dict[str, list[Made]]) -> str:
    """Table of where the time of this project's runs goes."""
    ours = {label: runs for label, runs in made.items() if label.startswith("fmrisynth")}
    lines = [head("seconds (share)", *STAGES)]
    for label, runs in ours.items():
        total = sum(one.total for one in runs)
        cells = [
            f"{statistics.median(one.seconds[stage] for one in runs):.2f} "
            f"({sum(one.seconds[stage] for one in runs) / total:.0%})"
            for stage in STAGES
        ]
        lines.append(row(label, *cells))
    return "\n".join(lines)


def main() -> None:
    options = arguments()
    shape, n_volumes, t_r = size_of(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = in_child(write_run, folder, shape, n_volumes, t_r)
        print(machine(options.device))
        print(
            f"{' × '.join(map(str, shape))} × {n_volumes}, {voxels(run):,} brain voxels, preset "
            f"{options.preset} {' '.join(options.set)}, {options.precision} on {options.device}"
        )
        ways: dict[str, tuple[Callable[..., Made], tuple[Any, ...]]] = {}
        for sampling in samplings(options):
            label = f"fmrisynth, {sampling.sampler}, {sampling.steps} steps"
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
        print()
        print(head("", "seconds", "CPU s", "peak, GiB", "before the run, GiB"))
        for label, runs in made.items():
            print(report(label, runs))
        ours = next(iter(made))
        for label in list(made)[1:]:
            clock, cpu = (
                paired_ratio([get(m) for m in made[label]], [get(m) for m in made[ours]])
                for get in (attrgetter("total"), attrgetter("cpu"))
            )
            print(row(f"{label} / {ours}", clock, cpu, "", ""))
        print()
        print(stages(made))


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
