"""Seconds and memory to find the runs of a large study: 1000 participants with 14 runs each.

    python tests/campaigns/scale.py --folder FOLDER

The dataset has raw images, fMRIPrep derivatives with masks, events and sidecars. Headers
are real and in files of their own, the voxels behind them are left out; what is alike is
one file under many names (hard links). Each call of `find_runs` is a process of its own:
without a database, with a new one, and with the one there is. A FOLDER that is kept is not
made again. Exit code 1 when a call finds another number of runs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

import fmrisynth

SPACE = "MNI152NLin2009cAsym"
# the seven tasks of the Human Connectome Project, each with two phase encodings
TASKS = ("EMOTION", "GAMBLING", "LANGUAGE", "MOTOR", "RELATIONAL", "SOCIAL", "WM")
DIRECTIONS = {"LR": "i", "RL": "i-"}
RUNS = len(TASKS) * len(DIRECTIONS)
# what a call of its own prints: runs, wall seconds, CPU seconds, peak resident set (KiB)
_CALL = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from fmrisynth.bids.search import find_runs
database = Path(sys.argv[2]) if len(sys.argv) > 2 else None
runs = find_runs(Path(sys.argv[1]), database_dir=database).runs
seconds = time.perf_counter() - began
assert all(run.mask for run in runs)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(len(runs), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def make_dataset(root: Path, n_participants: int) -> None:
    """Write the raw dataset and, below it, the derivatives; only names and headers differ."""
    derivatives = root / "derivatives" / "fmriprep"
    derivatives.mkdir(parents=True)
    description = {"Name": "scale", "BIDSVersion": "1.9.0"}
    _write_json(root / "dataset_description.json", description)
    _write_json(
        derivatives / "dataset_description.json",
        {**description, "DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]},
    )
    labels = [f"{number:04d}" for number in range(1, n_participants + 1)]
    rows = ["participant_id\tsite", *(f"sub-{label}\tone" for label in labels)]
    (root / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    patterns = root / "sourcedata"  # not entered: what the names below are links to
    patterns.mkdir()
    _write_patterns(patterns)
    for label in labels:
        _write_participant(root, derivatives, patterns, label)


def _write_patterns(folder: Path) -> None:
    """Write one file of each kind."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for name, shape, dtype in (
        ("raw.nii.gz", (104, 90, 72, 284), np.int16),
        ("preproc.nii.gz", (97, 115, 97, 284), np.int16),
        ("mask.nii.gz", (97, 115, 97), np.uint8),
    ):
        header = nib.Nifti1Header()
        header.set_data_dtype(dtype)
        header.set_data_shape(shape)
        header.set_sform(affine, code=4)
        header.set_zooms((2.0, 2.0, 2.0, 0.72)[: len(shape)])
        header.set_xyzt_units("mm", "sec")
        # the voxels are cut off: a header and its four bytes of extensions
        header["magic"], header["vox_offset"] = b"n+1", 352
        (folder / name).write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    onsets = "".join(f"{onset}\t12.5\t{onset % 3}-back\n" for onset in range(10, 200, 15))
    (folder / "events.tsv").write_text(f"onset\tduration\ttrial_type\n{onsets}", encoding="utf-8")
    _write_json(folder / "mask.json", {"Type": "Brain", "RawSources": ["bids::raw.nii.gz"]})
    for task in TASKS:
        metadata = {"RepetitionTime": 0.72, "TaskName": task}
        _write_json(
            folder / f"preproc-{task}.json",
            {**metadata, "StartTime": 0.36, "SkullStripped": False, "SliceTimingCorrected": False},
        )
        for direction, code in DIRECTIONS.items():
            timing = [round(0.01 * index, 3) for index in range(72)]
            _write_json(
                folder / f"raw-{task}-{direction}.json",
                {**metadata, "PhaseEncodingDirection": code, "SliceTiming": timing},
            )


def _write_participant(root: Path, derivatives: Path, patterns: Path, label: str) -> None:
    raw, preprocessed = root / f"sub-{label}" / "func", derivatives / f"sub-{label}" / "func"
    raw.mkdir(parents=True)
    preprocessed.mkdir(parents=True)
    for task in TASKS:
        for direction in DIRECTIONS:
            stem = f"sub-{label}_task-{task}_dir-{direction}"
            in_space = f"{stem}_space-{SPACE}"
            for pattern, path in (
                (f"raw-{task}-{direction}.json", raw / f"{stem}_bold.json"),
                ("events.tsv", raw / f"{stem}_events.tsv"),
                (f"preproc-{task}.json", preprocessed / f"{in_space}_desc-preproc_bold.json"),
                ("mask.json", preprocessed / f"{in_space}_desc-brain_mask.json"),
            ):
                os.link(patterns / pattern, path)
            for pattern, path in (
                ("raw.nii.gz", raw / f"{stem}_bold.nii.gz"),
                ("preproc.nii.gz", preprocessed / f"{in_space}_desc-preproc_bold.nii.gz"),
                ("mask.nii.gz", preprocessed / f"{in_space}_desc-brain_mask.nii.gz"),
            ):
                path.write_bytes((patterns / pattern).read_bytes())


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def measure(dataset: Path, database: Path | None) -> tuple[int, str]:
    """Find the runs in a process of its own: their number, and what it took, in words."""
    places = [dataset] if database is None else [dataset, database]
    words = [sys.executable, "-c", _CALL, *map(str, places)]
    environment = {**os.environ, "PYTHONPATH": str(Path(fmrisynth.__file__).parents[1])}
    printed = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    n_runs, seconds, cpu_seconds, peak = map(float, printed.stdout.split())
    return int(n_runs), (
        f"{n_runs:.0f} runs in {seconds:.1f} s ({cpu_seconds:.1f} s of CPU), "
        f"{peak / 2**10:.0f} MiB at most"
    )


def campaign(folder: Path, n_participants: int) -> bool:
    """Make the dataset, where it is not there, and measure; whether every run was found."""
    dataset = folder / "bids"
    if not dataset.exists():
        began = time.monotonic()
        unfinished = folder / "bids.new"
        make_dataset(unfinished, n_participants)
        unfinished.rename(dataset)
        print(f"{n_participants} participants written in {time.monotonic() - began:.0f} s")
    complete = True
    with tempfile.TemporaryDirectory(prefix="database-", dir=folder) as made:
        database = Path(made)
        for name, place in (
            ("without a database", None),
            ("with a new database", database),
            ("with the database", database),
        ):
            n_runs, what = measure(dataset, place)
            complete &= n_runs == n_participants * RUNS
            print(f"{name}: {what}", flush=True)
    return complete


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, default=1000, metavar="N")
    parser.add_argument("--folder", type=Path, help="where to work; kept [default: temporary]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fmrisynth-scale-") as temporary:
        found = campaign(given.folder or Path(temporary), given.participants)
    sys.exit(0 if found else 1)
