"""Runs an hour by one process and by several at once, one core each.

A process has a model in memory and makes whole runs, from reading with statistics to
writing with confounds, one after the other (`synthesis.py`); "reading" stops before
sampling. One process and several take turns. Give the script as many cores as processes:
``taskset -c 0,1 python benchmarks/cores.py``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from cases import read_run, untrained_model, write_run
from measuring import head, in_child, machine, paired_ratio, row, spread
from synthesis import make_ours, run_parser, size_of

from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS
from fmrisynth.synthesis.run_statistics import SiblingReader


def arguments() -> argparse.Namespace:
    parser = run_parser(__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3, help="runs that each process makes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def seconds_of(work: str, folder: Path, preset: str, settings: list[str], device: str) -> float:
    """Seconds of one piece of work, without making the model."""
    torch.set_num_threads(1)
    config = override(PRESETS[preset], dict(item.split("=", 1) for item in settings))
    if work == "writing":
        return make_ours(folder, preset, settings, config.sampling, device, "auto").total
    run = read_run(folder)
    model = untrained_model(config, run).to(torch.device(device))
    reader = SiblingReader(model, model.response.inference(), None)
    started = time.perf_counter()
    reader.read(run)
    return time.perf_counter() - started


def rate(options: argparse.Namespace, work: str, folder: Path, processes: int) -> float:
    """Measure the runs an hour of so many processes at once.

    The first run of a process loads what later ones find loaded, and is not counted.
    """
    once = partial(seconds_of, work, folder, options.preset, options.set, options.device)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_each, options.runs, once) for _ in range(processes)]
        return sum(options.runs * 3600 / future.result() for future in futures)


def _each(runs: int, once: Callable[[], float]) -> float:
    """Seconds of a process's runs, one after the other."""
    taken = [once() for _ in range(runs + 1)]
    return sum(taken[1:])


def main() -> None:
    options = arguments()
    shape, n_volumes, t_r = size_of(options)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    print(machine(options.device))
    print(f"{' × '.join(map(str, shape))} × {n_volumes}, preset {options.preset}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_child(write_run, folder, shape, n_volumes, t_r)
        print(head("", "one process: runs/hour", f"{options.processes} processes", "ratio"))
        for work in ("reading", "writing"):
            one, several = [], []
            for _ in range(options.repeats):
                one.append(rate(options, work, folder, 1))
                several.append(rate(options, work, folder, options.processes))
            print(row(work, spread(one), spread(several), paired_ratio(several, one)), flush=True)


if __name__ == "__main__":
    main()
