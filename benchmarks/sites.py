"""What a model of other sites is worth at a site, beside models that have learned from it.

Three simulated sites differ in repetition time, voxels, noise, delay of the response, distortions
and units, and have different participants. At each site three models are judged by the same
held-out participants: one of that site alone (`in-site`), one of all three, which is the same for
all of them (`all sites`, --learn-from), and one of the two others, which has seen no participant,
voxel or repetition time of the site (`left-out`). `group-glm` has learned from the training
participants of the site, as `in-site` has; `real` are those participants themselves. Every rule
of the verdict is a row, those first that leaving the site out breaks most often. What is finished
in the folder is not computed again.

    python benchmarks/sites.py FOLDER --seeds 0 1 2 --jobs 8
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from results import header

from fmrisynth.config.codec import override
from fmrisynth.config.presets import PRESETS
from fmrisynth.evaluation.metrics.verdict import judge
from fmrisynth.evaluation.storage import load_evaluation
from fmrisynth.phantom.texts import participant_labels
from fmrisynth.preprocess.splits import choose_split

DURATION = 132.0  # s of a run
SOURCES = {
    "fmrisynth": "in-site",
    "all sites": "all sites",
    "left-out": "left-out",
    "group-glm": "group-glm",
    "real": "real",
}
"""Names in the comparison, and in the table."""


@dataclass(frozen=True)
class Site:
    """Describe a scanner.

    Attributes
    ----------
    t_r : float
        Repetition time (s).
    voxel_size : float
        Edge of the voxels (mm) at scale 1.
    tsnr : float
        Temporal signal-to-noise ratio at scale 1.
    options : tuple of str
        What else differs, as options of the phantom.
    """

    t_r: float
    voxel_size: float
    tsnr: float
    options: tuple[str, ...]


SITES = {
    "A": Site(2.0, 4.0, 80.0, ()),
    "B": Site(0.8, 3.0, 45.0, ("--hrf-delay=0.6", "--distortion=0.6", "--intensity=0.1")),
    "C": Site(3.0, 5.0, 120.0, ("--hrf-delay=-0.4", "--distortion=1.5", "--intensity=3")),
}


class Calls:
    """Make the calls of the benchmark, each in a process of its own and once.

    Parameters
    ----------
    options : argparse.Namespace
        Folder, sizes, and what the calls are to be given.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.environment = dict(os.environ, OMP_NUM_THREADS=str(options.nprocs))

    def place(self, seed: int, name: str) -> Path:
        """Return a folder of a seed."""
        return self.options.folder / f"seed-{seed}" / name

    def simulate(self, seed: int, name: str) -> None:
        """Write the cohort of a site; every site and seed has participants of its own."""
        options, site, root = self.options, SITES[name], self.place(seed, name)
        if root.is_dir():
            return
        self._call(
            "fmrisynth.phantom", root, "--site", name, *site.options,
            *(word for task in options.tasks for word in ("-t", task)),
            "--n-participants", options.participants, "--n-runs", options.n_runs,
            "--n-volumes", round(DURATION / site.t_r), "--t-r", site.t_r,
            "--voxel-size", site.voxel_size * options.scale,
            "--tsnr", site.tsnr * options.scale, "--realism", options.realism,
            "--seed", 10 * seed + list(SITES).index(name), "--nprocs", options.nprocs, "--quiet",
        )  # fmt: skip

    def learn_in_site(self, seed: int, site: str) -> None:
        """Learn from a site alone, and write its participants."""
        self._write(seed, site, f"in-site-{site}")

    def learn_from_all(self, seed: int) -> None:
        """Learn from all sites, and write the participants of each."""
        first, *further = SITES
        self._write(seed, first, f"all-{first}", *self._further(seed, further))
        for site in further:
            self._write(
                seed, site, f"all-{site}", "--model", self.place(seed, f"all-{first}") / "model"
            )

    def learn_without(self, seed: int, site: str) -> None:
        """Learn from the other sites, and write the participants of the one that is left out."""
        first, *further = (name for name in SITES if name != site)
        without = f"without-{site}"
        self._participant_level(seed, first, without, *self._further(seed, further), "--train-only")
        self._write(seed, site, f"left-out-{site}", "--model", self.place(seed, without) / "model")

    def compare(self, seed: int, site: str) -> None:
        """Compare the models at a site, by the participants whom none has learned from."""
        out = self.place(seed, f"in-site-{site}")
        if (out / "group" / "evaluation").is_dir():
            return
        self._call(
            "fmrisynth", self.place(seed, site), out, "group", "--compare",
            f"all sites={self.place(seed, f'all-{site}')}",
            f"left-out={self.place(seed, f'left-out-{site}')}",
            "--baselines", "group-glm", "--nprocs", self.options.nprocs, "--random-seed", seed,
            "--skip-bids-validation",
        )  # fmt: skip

    def _further(self, seed: int, sites: Sequence[str]) -> list[object]:
        return ["--learn-from", *(f"{site}={self.place(seed, site)}" for site in sites)]

    def _write(self, seed: int, site: str, out: str, *words: object) -> None:
        """Write the held-out participants, and as many of the others."""
        labels = participant_labels(self.options.participants)
        assignments = dict(item.split("=", 1) for item in self.options.set)
        config = override(PRESETS[self.options.preset], assignments)
        split = choose_split(labels, config.held_out_share, seed)
        written = [*split.held_out, *split.training[: len(split.held_out)]]
        self._participant_level(seed, site, out, *words, "--participant-label", *written)

    def _participant_level(self, seed: int, site: str, out: str, *words: object) -> None:
        options, target = self.options, self.place(seed, out)
        if (target / "finished").is_file():
            return
        steps = ["--max-steps", options.max_steps] if options.max_steps else []
        self._call(
            "fmrisynth", self.place(seed, site), target, "participant", *words, *steps,
            *(word for item in options.set for word in ("--set", item)),
            "--preset", options.preset, "--random-seed", seed, "--device", options.device,
            "--nprocs", options.nprocs, "--skip-bids-validation",
        )  # fmt: skip
        (target / "finished").touch()

    def _call(self, module: str, *words: object) -> None:
        """Call a module; its messages are shown where it fails."""
        command = [sys.executable, "-m", module, *map(str, words)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[2:])}\n{done.stderr[-3000:]}")
        print(f"done: {' '.join(command[2:7])}", flush=True)


def side_by_side(jobs: int, calls: Sequence[Callable[[], None]]) -> None:
    """Make calls side by side, and wait for all of them."""
    with ThreadPoolExecutor(jobs) as pool:
        for made in [pool.submit(call) for call in calls]:
            made.result()


@dataclass(frozen=True)
class Judged:
    """Hold an estimate and whether its rule is met; None where that cannot be judged."""

    value: float
    passed: bool | None


Row = dict[str, list[Judged]]


def read_verdicts(calls: Calls, seeds: Sequence[int]) -> dict[str, Row]:
    """Read every rule of the verdict for every source, over sites and seeds."""
    rows: dict[str, Row] = {}
    for seed in seeds:
        for site in SITES:
            folder = calls.place(seed, f"in-site-{site}") / "group" / "evaluation"
            evaluation = load_evaluation(folder)
            real = evaluation.estimates["real"]
            for source in SOURCES:
                for judged in judge(evaluation.estimates[source], real):
                    row = rows.setdefault(judged.metric.label, defaultdict(list))
                    row[source].append(Judged(judged.estimate.value, judged.passed))
    return rows


def met(judged: Sequence[Judged]) -> tuple[int, int]:
    """Count the rules that are met, among those that could be judged."""
    outcomes = [item.passed for item in judged if item.passed is not None]
    return sum(outcomes), len(outcomes)


def share_met(judged: Sequence[Judged]) -> float:
    """Return the share of the rules that are met; 1 where none could be judged."""
    number, of = met(judged)
    return number / of if of else 1.0


def cell(judged: Sequence[Judged]) -> str:
    """Write the mean and how many of the rules that could be judged are met: ``.93 (8/9)``."""
    values = [item.value for item in judged if item.value == item.value]
    if not values:
        return "n/a"
    number, of = met(judged)
    return f"{statistics.fmean(values):.3g} ({number}/{of})" if of else "n/a"


def table(rows: dict[str, Row]) -> str:
    """Write the rules as a Markdown table, those first that leaving a site out breaks."""

    def broken(label: str) -> tuple[float, str]:
        row = rows[label]
        return share_met(row["left-out"]) - share_met(row["fmrisynth"]), label

    lines = [
        "| rule | " + " | ".join(SOURCES.values()) + " |",
        "|---|" + "---|" * len(SOURCES),
        *(
            f"| {label} | " + " | ".join(cell(rows[label][name]) for name in SOURCES) + " |"
            for label in sorted(rows, key=broken)
        ),
    ]
    totals = [met([item for row in rows.values() for item in row[name]]) for name in SOURCES]
    lines.append("| rules met | " + " | ".join(f"{n} of {of}" for n, of in totals) + " |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, learn, write, compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--participants", type=int, default=12, help="of each site")
    parser.add_argument("--n-runs", type=int, default=1, help="a task and direction")
    parser.add_argument("--tasks", nargs="+", default=["MOTOR", "WM"])
    parser.add_argument("--scale", type=float, default=2.0, help="factor on all voxel sizes")
    parser.add_argument("--realism", default="full", choices=("gaussian", "full"))
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--nprocs", type=int, default=2, help="processors of each call")
    parser.add_argument("--jobs", type=int, default=1, help="calls side by side")
    options = parser.parse_args()
    calls = Calls(options)
    pairs = [(seed, site) for seed in options.seeds for site in SITES]
    side_by_side(options.jobs, [partial(calls.simulate, *pair) for pair in reversed(pairs)])
    learning = [partial(calls.learn_from_all, seed) for seed in options.seeds]
    learning += [partial(calls.learn_without, *pair) for pair in pairs]
    learning += [partial(calls.learn_in_site, *pair) for pair in pairs]
    side_by_side(options.jobs, learning)
    side_by_side(options.jobs, [partial(calls.compare, *pair) for pair in pairs])
    print(f"\n{header()}\n")
    print(table(read_verdicts(calls, options.seeds)))


if __name__ == "__main__":
    main()
