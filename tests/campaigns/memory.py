"""Peak memory of each stage on runs of HCP size.

    python tests/campaigns/memory.py --shape 91 109 91 --volumes 284 --nprocs 2

The runs (3 participants, 2 tasks) are noise in an ellipsoid. Each stage is a call of its
own: training, synthesis of the runs of the participant who was held out, and the group
level with its simulator. Each is told by --mem what it may take, and what is measured is
the largest memory that the call and all of its processes take together, pages that they
share counted once. Exit code 1 when one of them takes more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.bids_tree import brain_of, write_nifti

from campaigns.common import start, tiny_dataset

LIMITS = {"participant": 8.0, "group": 12.0}  # GiB
INTERVAL = 0.1  # s between two looks
TRAINING = ["--preset", "demo", "--max-steps", 3, "--device", "cpu", "--train-only"]


def large_dataset(root: Path, shape: tuple[int, int, int], n_volumes: int) -> Path:
    """Give the runs of a tiny dataset another size; all of them are one file under many names."""
    dataset = tiny_dataset(root)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1.0)
    brain = brain_of(shape)
    rng = np.random.default_rng(0)
    data = np.zeros((*shape, n_volumes), np.int16)
    anatomy = rng.uniform(800, 1200, int(brain.sum()))
    for volume in range(n_volumes):
        data[brain, volume] = rng.normal(anatomy, 10)
    for pattern, content in (
        ("*preproc_bold.nii.gz", data),
        ("*brain_mask.nii.gz", brain.astype("u1")),
    ):
        first, *others = sorted(dataset.rglob(pattern))
        write_nifti(first, content, affine, t_r=2.0)
        for other in others:
            other.unlink()
            os.link(first, other)
    return dataset


def family(pid: int) -> Iterator[int]:
    """Yield a process and all that it has started, as far as they still live."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from family(int(child))


def resident(pid: int) -> float:
    """GiB of a process, its share of shared pages included."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 2**20


def measure(*words: object) -> tuple[float, float]:
    """Run a call to its end; peak memory of all its processes (GiB) and seconds."""
    began = time.monotonic()
    process = start(*words)
    peak, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(INTERVAL):
            peak = max(peak, sum(map(resident, family(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, messages = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(messages[-4000:])
    return peak, time.monotonic() - began


def campaign(folder: Path, shape: tuple[int, int, int], n_volumes: int, nprocs: int) -> bool:
    """Measure all stages; whether each of them kept its limit."""
    dataset = large_dataset(folder / "bids", shape, n_volumes)
    out = folder / "out"
    call = (dataset, out)
    common = ("--nprocs", nprocs, "--work-dir", folder / "work", "--skip-bids-validation")
    kept = True

    def stage(name: str, level: str, *options: object) -> None:
        nonlocal kept
        limit = LIMITS[level]
        peak, seconds = measure(*call, level, *common, "--mem", f"{limit}G", *options)
        print(f"{name}: {peak:.2f} of {limit:g} GiB, {seconds:.0f} s", flush=True)
        kept &= peak <= limit

    stage("training", "participant", *TRAINING)
    split = json.loads((out / "model" / "config.json").read_text())["split"]
    stage("synthesis", "participant", "--participant-label", *split["held_out"])
    stage("group", "group")
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(91, 109, 91), metavar="N")
    parser.add_argument("--volumes", type=int, default=284, metavar="N")
    parser.add_argument("--nprocs", type=int, default=2, metavar="N")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fmrisynth-memory-") as temporary:
        x, y, z = given.shape
        found = campaign(Path(temporary), (x, y, z), given.volumes, given.nprocs)
    sys.exit(0 if found else 1)
