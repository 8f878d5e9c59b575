"""Seconds until the network alone draws the tasks' maps: this project's recipe beside MONAI's.

Quality is reached where the group maps that the network gives held-out participants have nine
tenths of the Corr that the training participants' GLM has with the held-out ones'. Each budget
is a training of its own, with its own schedule. MONAI's network of equal size then learns
plainly, by the diffusion's targets alone, for as many steps as take so many times as long, and
for more until it gets there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ablation import ALONE, ARCHITECTURES, NO_REGRESSION
from group_maps import Reference, synthetic_maps, train
from results import Results, header

import fmrisynth
from fmrisynth.config.codec import override
from fmrisynth.config.model import ModelConfig
from fmrisynth.config.presets import PRESETS

MONAI_PLAIN = ARCHITECTURES["MONAI"] | ALONE | NO_REGRESSION
FIRST_STEPS = 40  # of MONAI's network, which tell the time that a step takes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="BIDS dataset, all runs on one grid")
    parser.add_argument("folder", type=Path, help="working folder; finished trainings are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 150, 200, 300, 400, 800])
    parser.add_argument(
        "--ratio",
        type=float,
        nargs="+",
        default=[4.0, 8.0, 20.0],
        help="time that MONAI's is given",
    )
    parser.add_argument("--share", type=float, default=0.9, help="of the reference's Corr")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    return parser.parse_args()


class Trainings:
    """Train and judge models of one dataset and seed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.dataset = fmrisynth.find_runs(options.dataset)
        given = dict(item.split("=", 1) for item in options.set)
        self.config: ModelConfig = override(PRESETS[options.preset], given)
        self.seed, self.folder = options.seed, options.folder / "work"
        self.results = Results(
            options.folder / "rows", [options.dataset, options.preset, options.seed, options.set]
        )
        share = self.config.held_out_share
        self.reference = Reference(self.dataset.runs, share, self.seed, self.folder)
        self.limit = self.reference.measure(self.reference.training)["corr"]

    def of(self, name: str, settings: dict[str, str], steps: int) -> dict[str, float]:
        """Train for some steps; Corr as a share of the reference's, CPU seconds of the training."""

        def measure() -> dict[str, float]:
            config = override(self.config, settings | {"diffusion_steps": str(steps)})
            trained = train(self.dataset.runs, config, self.folder, self.seed)
            held_out = self.reference.split.held_out
            maps = synthetic_maps(trained.model, self.dataset, held_out, network_alone=True)
            share = self.reference.measure(maps)["corr"] / self.limit
            return {"share": share, "seconds": trained.seconds, "CPU s": trained.cpu_seconds}

        return self.results.get(f"{name} {steps}", self.seed, measure)


def main() -> None:
    options = arguments()
    trainings = Trainings(options)
    print(f"the training participants' GLM has a Corr of {trainings.limit:.3f}")
    for steps in options.steps:
        ours = trainings.of("recipe", ALONE, steps)
        report("recipe", steps, ours)
        if ours["share"] >= options.share:
            break
    else:
        print(f"{options.share} of it is not reached in {options.steps[-1]} steps")
        return
    first = trainings.of("MONAI plainly", MONAI_PLAIN, FIRST_STEPS)
    report("MONAI plainly", FIRST_STEPS, first)
    missed = 0.0
    for times in options.ratio:
        steps = round(times * ours["CPU s"] / first["CPU s"] * FIRST_STEPS)
        theirs = trainings.of("MONAI plainly", MONAI_PLAIN, steps)
        report("MONAI plainly", steps, theirs)
        ratio = theirs["CPU s"] / ours["CPU s"]
        if theirs["share"] >= options.share:
            print(f"MONAI's time / the recipe's: more than {missed:.1f}, at most {ratio:.1f}")
            break
        missed = ratio
    else:
        print(f"MONAI's time / the recipe's: more than {missed:.1f}")
    print(header())


def report(name: str, steps: int, values: dict[str, float]) -> None:
    """Print what one training reached."""
    print(
        f"{name}, {steps} steps: {values['share']:.3f} of the reference's Corr in "
        f"{values['CPU s']:.0f} s of CPU time ({values['seconds']:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    main()
