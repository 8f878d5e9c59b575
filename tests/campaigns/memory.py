"""Peak memory of `participant` on one run of HCP size, besides the model.

    python tests/campaigns/memory.py --shape 91 109 91 --volumes 284

The run is noise in an ellipsoid. What is measured is the largest resident set of a
process of its own that synthesises it, with a small trained model, and how long
reading, making and writing it takes. Exit code 1 above the limit (8 GiB).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import brain_of, write_nifti
from tiny_model import make_model

from campaigns.common import start, tiny_dataset

LIMIT = 8.0  # GiB


def large_run(dataset: Path, shape: tuple[int, int, int], n_volumes: int) -> None:
    """Give the only run of a tiny dataset another size, and events that fit it."""
    image = next(dataset.rglob("*preproc_bold.nii.gz"))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1.0)
    brain = brain_of(shape)
    rng = np.random.default_rng(0)
    data = np.zeros((*shape, n_volumes), np.int16)
    for volume in range(n_volumes):
        data[brain, volume] = rng.normal(1000, 10, int(brain.sum()))
    write_nifti(image, data, affine, t_r=2.0)
    mask = next(dataset.rglob("*brain_mask.nii.gz"))
    write_nifti(mask, brain.astype("u1"), affine)


def measure(words: list[object]) -> tuple[float, float, str]:
    """Run to the end; peak resident set (GiB), seconds, and the messages."""
    began = time.monotonic()
    process = start(*words)
    assert process.stderr is not None
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(messages[-4000:])
    return usage.ru_maxrss / 2**20, time.monotonic() - began, messages


def campaign(folder: Path, shape: tuple[int, int, int], n_volumes: int) -> float:
    """Measure a small run and a large one; return the large one's peak in GiB."""
    make_model().save(folder / "model")
    options = ["--model", folder / "model", "--sampling-steps", 2, "--nprocs", 1, "--device", "cpu"]
    options += ["--n-samples", 3]  # one is read and one is written while one is made
    dataset = tiny_dataset(folder / "bids", participants=("01",), tasks=("motor",))
    small, *_ = measure([dataset, folder / "small", "participant", *options])
    large_run(dataset, shape, n_volumes)
    large, seconds, _ = measure([dataset, folder / "large", "participant", *options])
    made = next((folder / "large").rglob("*_desc-synth_bold.nii.gz"))
    assert nib.load(made).shape == (*shape, n_volumes)
    print(
        f"{'×'.join(map(str, (*shape, n_volumes)))}: {large:.2f} GiB in {seconds:.0f} s "
        f"({made.stat().st_size / 1e6:.0f} MB written); a run of 8×9×8×20: {small:.2f} GiB"
    )
    return large


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(91, 109, 91), metavar="N")
    parser.add_argument("--volumes", type=int, default=284, metavar="N")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fmrisynth-memory-") as temporary:
        x, y, z = given.shape
        peak = campaign(Path(temporary), (x, y, z), given.volumes)
    sys.exit(1 if peak > LIMIT else 0)
