"""What a mean image alone tells of a person's responses: no run of theirs with events is read.

For each participant who was not learned from, the response network's maps, decoded to the model
grid and less those without anatomy, are correlated with the maps of the GLM of the participant's
real runs, less the training participants' mean. The control are other participants' real maps.
Beside it the group maps of the held-out participants (Corr), with anatomy and without.

    python benchmarks/from_anatomy.py BIDS_DIR MODEL_DIR [MODEL_DIR ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from group_maps import Effects, Reference
from measuring import head, row
from oracle import Space, correlation, described

from fmrisynth import Model, find_runs
from fmrisynth.bids.images import load_bold
from fmrisynth.preprocess.carrier import split
from fmrisynth.preprocess.grid import resample
from fmrisynth.synthesis.synthesiser import Synthesiser


@torch.no_grad()
def foretold(model: Model, space: Space, mean: np.ndarray | None) -> np.ndarray:
    """Decode the response that the network expects of a mean image (X, Y, Z), (V, P)."""
    image = None if mean is None else torch.from_numpy(mean)
    return space.decode(model.response.expectation(image).detach()[:, 0])


def on_grid(model: Model, effects: Effects, affine: np.ndarray) -> np.ndarray:
    """Average the GLM's maps over a participant's runs, on the model grid, (V, P)."""
    grid = model.grid
    names = [f"{task} {name}" for task, name in model.info.vocabulary.trial_types]
    maps = np.stack([np.mean(np.nan_to_num(effects[name]), axis=0) for name in names], axis=-1)
    return resample(maps, affine, grid.affine, grid.shape)[grid.mask].T


def measure(bids_dir: Path, model_dir: Path, work_dir: Path) -> list[str]:
    """Return the cells of one model."""
    model, dataset = Model.load(model_dir), find_runs(bids_dir)
    space, info = Space(model), model.info
    seed = int(info.provenance["seed"])
    reference = Reference(dataset.runs, info.config.held_out_share, seed, work_dir)
    first = {run.participant: run for run in reversed(dataset.runs)}
    means = {}
    for label in info.split.held_out:
        carrier = split(load_bold(first[label]), info.config.preprocess.high_pass)[0]
        means[label] = Synthesiser(model, info.config.sampling).anatomy(carrier)[0]
    real = {
        label: on_grid(model, own, first[label].affine) for label, own in reference.effects.items()
    }
    group = np.mean([real[label] for label in info.split.training], axis=0)
    without = foretold(model, space, None)
    maps = {label: foretold(model, space, mean) for label, mean in means.items()}
    own = np.array([correlation(maps[p] - without, real[p] - group) for p in maps])
    others = np.array(
        [
            np.mean([correlation(maps[p] - without, real[q] - group) for q in maps if q != p])
            for p in maps
        ]
    )
    held_out = np.mean([real[label] for label in maps], axis=0)
    corr = (correlation(m, held_out) for m in (np.mean(list(maps.values()), axis=0), without))
    return [described(own), described(others), *(f"{c:.3f}" for c in corr)]


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("model_dirs", type=Path, nargs="+", metavar="MODEL_DIR")
    parser.add_argument("--work-dir", type=Path, required=True, help="keeps the real maps")
    options = parser.parse_args()
    print(head("model", "own r", "with other participants", "Corr", "Corr without anatomy"))
    for path in options.model_dirs:
        print(row(path, *measure(options.bids_dir, path, options.work_dir)), flush=True)


if __name__ == "__main__":
    main()
