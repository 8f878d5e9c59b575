"""Whether drawn carriers give away whom they were learned from: the carrier audit.

Participants of a BIDS dataset are left out by quarters. For each quarter, carriers are drawn
from a prior that was learned from the others, and each drawn mean image is compared with its
nearest participant among those learned from, as are the images of the participants left out. If
the drawn ones are no nearer, nobody's image is in them: the AUC is at most about .5. Copies of
the images that were learned from are the control, with an AUC of 1.

    python benchmarks/carriers.py BIDS_DIR [BIDS_DIR…] --voxel-size 8
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from fmrisynth.bids.dataset import BoldRun
from fmrisynth.bids.images import load_bold
from fmrisynth.bids.search import find_runs
from fmrisynth.config.model import PreprocessConfig
from fmrisynth.preprocess.cache import RunData, load_run_data
from fmrisynth.preprocess.grid import Grid, choose_grid
from fmrisynth.training.carriers import fit_carriers

FOLDS, DRAWS, BOOTSTRAPS = 4, 20, 1000
BRIGHTEST = 3.0  # of the median: vessels are no anatomy


def read_runs(bids: Path, voxel_size: float, cache: Path) -> tuple[list[RunData], Grid]:
    """Read one run of each participant on a common grid."""
    first = {run.participant: run for run in reversed(find_runs(bids).runs)}
    runs = [first[p] for p in sorted(first)]
    grid = choose_grid([(load_bold(run).mask, run.affine) for run in runs], voxel_size, 2)
    config = PreprocessConfig(voxel_size=voxel_size)
    return [load_run_data(run, grid, config, cache) for run in runs], grid


def relative(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Divide an image by its median in the brain, without its brightest voxels."""
    values = image[inside] / np.median(image[inside])
    clipped: np.ndarray = np.clip(values, 0, BRIGHTEST)
    return clipped


def nearest(images: Sequence[np.ndarray], learned: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each image from the nearest one learned from."""
    return np.array([np.square(learned - image).mean(axis=1).min() for image in images])


def auc(nearer: np.ndarray, reference: np.ndarray) -> float:
    """Return the chance that one of the first is nearer than one of the second."""
    return float((nearer[:, None] < reference[None]).mean())


def audit(data: Sequence[RunData], grid: Grid) -> dict[str, Any]:
    """Audit the carriers drawn from each three quarters of the participants."""
    order = np.random.default_rng(0).permutation(len(data))
    like = cast(
        BoldRun,
        SimpleNamespace(shape=grid.shape, affine=grid.affine, t_r=2.0, n_volumes=100),
    )
    drawn, held_out, copies = [], [], []
    for fold in range(FOLDS):
        out = order[fold::FOLDS]
        training = [d for i, d in enumerate(data) if i not in out]
        prior = fit_carriers(cast(Any, SimpleNamespace(runs=training, grid=grid)))
        learned = np.stack([relative(d.mean, grid.mask) for d in training])
        carriers = [prior.draw(grid, like, 1 / 128, s, 0) for s in range(DRAWS)]
        drawn.append(nearest([relative(c.mean, grid.mask) for c in carriers], learned))
        held_out.append(nearest([relative(data[i].mean, grid.mask) for i in out], learned))
        copies.append(nearest(learned, learned))
    ours, real, same = (np.concatenate(d) for d in (drawn, held_out, copies))
    rng = np.random.default_rng(1)
    samples = [auc(ours, rng.choice(real, len(real))) for _ in range(BOOTSTRAPS)]
    return {
        "drawn": float(np.median(ours)),
        "held out": float(np.median(real)),
        "AUC": auc(ours, real),
        "interval": np.percentile(samples, [2.5, 97.5]).round(2).tolist(),
        "AUC of copies": auc(same, real),
    }


def main() -> None:
    """Print the audit of each dataset."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("bids", nargs="+", type=Path)
    parser.add_argument("--voxel-size", type=float, default=8.0, help="mm")
    options = parser.parse_args()
    for bids in options.bids:
        with tempfile.TemporaryDirectory() as cache:
            data, grid = read_runs(bids, options.voxel_size, Path(cache))
            figures = audit(data, grid)
        print(f"{bids.name}: {len(data)} participants")
        for name, value in figures.items():
            print(f"  {name:<14} {value if isinstance(value, list) else round(value, 4)}")


if __name__ == "__main__":
    main()
