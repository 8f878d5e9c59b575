"""What the network learns of the tasks by itself, without a response model.

Group maps that the network gives held-out participants, beside their GLM's, as a share of what
the training participants' GLM has. Every architecture learns with the regression phase and
plainly, by the diffusion's targets alone. A seed decides who is held out, the initial weights
and all noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ablation import ALONE, ARCHITECTURES, NO_REGRESSION
from group_maps import Reference, synthetic_maps, train
from results import Results, append, header, table

import fmrisynth
from fmrisynth.bids.dataset import Dataset
from fmrisynth.config.codec import override
from fmrisynth.config.model import ModelConfig
from fmrisynth.config.presets import PRESETS


def rows() -> dict[str, dict[str, str]]:
    """Return the settings of every row: architectures with the regression phase, and plainly."""
    named = {name: settings | ALONE for name, settings in ARCHITECTURES.items()}
    return named | {f"{n}, plain": s | ALONE | NO_REGRESSION for n, s in ARCHITECTURES.items()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="BIDS dataset, all runs on one grid")
    parser.add_argument("folder", type=Path, help="working folder; finished rows in it are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of the diffusion's training")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--only", nargs="+", help="names of the rows to run", choices=rows())
    return parser.parse_args()


def measure_row(dataset: Dataset, config: ModelConfig, seed: int, folder: Path) -> dict[str, float]:
    """Train one model and compare its network's maps with those of the held-out participants."""
    reference = Reference(dataset.runs, config.held_out_share, seed, folder)
    trained = train(dataset.runs, config, folder, seed)
    held_out = reference.split.held_out
    maps = synthetic_maps(trained.model, dataset, held_out, network_alone=True)
    return reference.measure(maps) | {"s": trained.seconds, "CPU s": trained.cpu_seconds}


def main() -> None:
    options = arguments()
    dataset = fmrisynth.find_runs(options.dataset)
    given = dict(item.split("=", 1) for item in options.set)
    config = override(PRESETS[options.preset], {"diffusion_steps": str(options.steps)} | given)
    results = Results(
        options.folder / "rows", [options.dataset, options.preset, options.steps, options.set]
    )
    found: dict[str, dict[str, list[float]]] = {}
    for seed in options.seeds:
        reference = Reference(dataset.runs, config.held_out_share, seed, options.folder / "work")
        limit = reference.measure(reference.training)
        append(found, "training participants' GLM", limit)
        for name, settings in rows().items():
            if options.only and name not in options.only:
                continue
            of_row = override(config, settings)
            values = results.get(
                name,
                seed,
                lambda c=of_row, s=seed: measure_row(dataset, c, s, options.folder / "work"),
            )
            values["Corr / GLM's"] = values["corr"] / limit["corr"]
            values["slope / GLM's"] = values["slope"] / limit["slope"]
            append(found, name, values)
    print(header(), "\n")
    columns = {"Corr / GLM's": 3, "corr": 3, "rsa": 3, "top1": 2, "slope / GLM's": 2}
    print(table(found, columns | {"CPU s": 0}))


if __name__ == "__main__":
    main()
