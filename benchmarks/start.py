"""Seconds until the program says or does something: help, a dry run, a loaded model's first run.

The model has learned from ten simulated participants with a few steps. The first run is
timed from the start of the process to the end of the call, for one participant's run; beside
it a second call that has nothing left to write.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from growth import SETTINGS
from measuring import Called, call_program, head, machine, row, spread

from fmrisynth.phantom import PhantomConfig, simulate_cohort


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--participants", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def fmrisynth(*words: str) -> Called:
    """Call the command line."""
    return call_program([sys.executable, "-m", "fmrisynth", *words])


def main() -> None:
    options = arguments()
    print(machine(options.device))
    print(head("", "seconds", "CPU s", "peak, GiB"))
    settings = [word for item in SETTINGS for word in ("--set", item)]
    machine_words = ["--nprocs", "1", "--device", options.device]
    with tempfile.TemporaryDirectory() as name:
        root, out = Path(name, "cohort"), Path(name, "out")
        config = PhantomConfig(options.participants, 48, voxel_size=12.0, tasks=("MOTOR",))
        simulate_cohort(root, config, progress=False)
        call = [str(root), str(out), "participant"]
        fmrisynth(*call, "--train-only", "--max-steps", "2", *settings, *machine_words)
        model = json.loads((out / "model" / "config.json").read_text())
        one = ["--participant-label", model["split"]["held_out"][0], *machine_words]
        ways = {
            "help": ["--help"],
            "version": ["--version"],
            "dry run": [*call, "--dry-run"],
            "first runs of a loaded model": [*call, *one],
            "nothing left to write": [*call, *one],
        }
        for label, words in ways.items():
            taken = []
            for _ in range(options.repeats):
                if label.startswith("first"):
                    for folder in out.glob("sub-*"):
                        shutil.rmtree(folder)
                taken.append(fmrisynth(*words))
            clock, cpu = spread([c.seconds for c in taken]), spread([c.cpu for c in taken])
            print(row(label, clock, cpu, f"{max(c.peak for c in taken) / 2**30:.2f}"), flush=True)


if __name__ == "__main__":
    main()
