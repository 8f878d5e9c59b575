"""How much of unseen participants' volumes autoencoders explain, after the same CPU time.

Each is trained on the residual volumes of the same participants, with the settings of its
preset but without the adversarial term, which works for looks and not for variance.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measuring import head, machine, row

from fmrisynth import find_runs
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import load_bold, load_mask
from fmrisynth.config.autoencoder import AdversarialConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.model.codec import decode_run, encode_run
from fmrisynth.preprocess.carrier import split
from fmrisynth.preprocess.grid import Grid, choose_grid, continue_outside, resample
from fmrisynth.preprocess.splits import choose_split
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.training.autoencoder import AutoencoderLearner

HIGH_PASS = 1 / 128


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--presets", nargs="+", default=["paper-38m", "scaled-38m"])
    parser.add_argument("--seconds", type=float, default=120, help="CPU time of each training")
    parser.add_argument("--checks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--volumes", type=int, default=2000, help="of each group, at most")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Volumes:
    """Volumes in memory."""

    def __init__(self, frames: np.ndarray) -> None:
        self.all = frames

    def __len__(self) -> int:
        return len(self.all)

    def frames(self, indices: np.ndarray) -> np.ndarray:
        return self.all[indices]


def residuals(runs: Sequence[Run], grid: Grid, count: int) -> np.ndarray:
    """Read residual volumes of runs on the grid, spread evenly."""
    each = max(1, count // len(runs))
    found = []
    for run in runs:
        carrier, residual = split(load_bold(run), HIGH_PASS)
        moved = resample(residual, carrier.affine, grid.affine, grid.shape)
        moved[~grid.mask] = 0
        frames = np.moveaxis(moved, 3, 0)
        found.append(frames[np.linspace(0, len(frames) - 1, min(each, len(frames))).astype(int)])
    return np.concatenate(found)


def train(
    preset: str, seen: np.ndarray, unseen: np.ndarray, grid: Grid, options: argparse.Namespace
) -> list[str]:
    """Explained variance of unseen volumes along a training, and its steps."""
    config = PRESETS[preset]
    training = replace(
        config.autoencoder_training, batch_size=options.batch, micro_batch=None,
        adversarial=AdversarialConfig(weight=0.0), ema_decay_max=0.99,
    )  # fmt: skip
    factor, scale = config.autoencoder.factor, float(seen[:, grid.mask].std())
    volumes = Volumes(continue_outside(seen, grid.mask, factor) / np.float32(scale))
    learner = AutoencoderLearner(
        make_fabric(options.device, "32-true", 0), config.autoencoder, training, volumes,
        grid.mask, seed=0,
    )  # fmt: skip
    spent, step, cells = 0.0, 0, []
    for check in range(1, options.checks + 1):
        while spent < options.seconds * check / options.checks:
            started = time.process_time()
            learner.step(step, min(1.0, spent / options.seconds))
            spent += time.process_time() - started
            step += 1
        raw = torch.from_numpy(encode_run(learner.averaged, unseen, scale, grid.mask))
        lost = (decode_run(learner.averaged, raw, scale) - unseen)[:, grid.mask]
        explained = 1 - np.square(lost).sum() / np.square(unseen[:, grid.mask]).sum()
        cells.append(f"{explained:.3f} ({step})")
    return cells


def main() -> None:
    options = arguments()
    runs = find_runs(options.dataset).runs
    chosen = choose_split([run.participant for run in runs], 0.25, 0)
    masks = [load_mask(run) for run in runs[:1]]
    factor = PRESETS[options.presets[0]].autoencoder.factor
    grid = choose_grid([(mask, runs[0].affine) for mask in masks], None, factor)
    seen, unseen = (
        residuals([run for run in runs if run.participant in labels], grid, options.volumes)
        for labels in (chosen.training, chosen.held_out)
    )
    print(machine(options.device))
    print(
        f"{len(chosen.training)} participants to learn from, {len(chosen.held_out)} held out, "
        f"volumes of {' × '.join(map(str, grid.shape))}, batches of {options.batch}: explained "
        "variance (steps)\n"
    )
    times = [options.seconds * k / options.checks for k in range(1, options.checks + 1)]
    print(head("autoencoder of", *(f"after {t:g} s" for t in times)))
    for preset in options.presets:
        print(row(preset, *train(preset, seen, unseen, grid, options)), flush=True)


if __name__ == "__main__":
    main()
