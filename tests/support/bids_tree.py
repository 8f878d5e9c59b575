"""Write small BIDS trees, raw and preprocessed, for the tests of every part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SPACE = "MNI152NLin2009cAsym"
FUNC = Path("derivatives", "fmriprep", "sub-01", "func")
MOTOR = f"sub-01_task-motor_space-{SPACE}_res-2_desc-preproc_bold"
TASKS = {"motor": ("hand", "foot"), "wm": ("zero", "two")}


def write_nifti(
    path: Path,
    data: np.ndarray,
    affine: np.ndarray,
    *,
    t_r: float | None = None,
    code: int = 4,
) -> Path:
    """Write an image as nibabel does, with pixdim[4] when `t_r` (s) is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    if t_r is not None:
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = t_r
    nib.save(image, path)
    return path


def write_description(root: Path, **more: Any) -> None:
    """Make `root` a BIDS dataset."""
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": root.name, "BIDSVersion": "1.10.0", **more}
    (root / "dataset_description.json").write_text(json.dumps(content))


def brain_of(shape: tuple[int, int, int]) -> np.ndarray:
    """An ellipsoid that fills most of the grid."""
    axes = [np.linspace(-1, 1, size) for size in shape]
    grid = np.meshgrid(*axes, indexing="ij")
    return np.asarray(sum(axis**2 for axis in grid) < 0.85)


def make_bids(
    root: Path,
    *,
    participants: Sequence[str] = ("01", "02", "03"),
    sessions: Sequence[str | None] = (None,),
    tasks: Sequence[str] = ("motor", "wm"),
    runs: Sequence[str | None] = (None,),
    shape: tuple[int, int, int] = (8, 9, 8),
    n_volumes: int = 20,
    t_r: float = 2.0,
    derivatives: str | None = "fmriprep",
    space: str = SPACE,
    seed: int = 0,
) -> Path:
    """Write a raw BIDS tree with empty raw images and, beside it, preprocessed ones.

    Each trial type has its own active voxels. Without `derivatives` the raw
    images hold the data. Returns `root`.
    """
    rng = np.random.default_rng(seed)
    write_description(root)
    rows = "".join(f"sub-{label}\tscanner{i % 2}\n" for i, label in enumerate(participants))
    (root / "participants.tsv").write_text("participant_id\tsite\n" + rows)
    preprocessed = root / "derivatives" / derivatives if derivatives else None
    if preprocessed is not None:
        write_description(
            preprocessed, DatasetType="derivative", GeneratedBy=[{"Name": derivatives}]
        )
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-14, -18, -12)
    brain = brain_of(shape)
    for task in tasks:
        sidecar = {"TaskName": task, "RepetitionTime": t_r, "PhaseEncodingDirection": "j-"}
        (root / f"task-{task}_bold.json").write_text(json.dumps(sidecar))
    for participant in participants:
        anatomy = rng.uniform(800, 1200, shape).astype("f4") * brain
        for session in sessions:
            for task in tasks:
                for run in runs:
                    parts = [f"sub-{participant}"] + ([f"ses-{session}"] if session else [])
                    stem = "_".join([*parts, f"task-{task}"] + ([f"run-{run}"] if run else []))
                    folder = Path(*parts, "func")
                    (root / folder).mkdir(parents=True, exist_ok=True)
                    events, courses = _events(TASKS.get(task, ("a", "b")), n_volumes, t_r)
                    (root / folder / f"{stem}_events.tsv").write_text(events)
                    noise = rng.normal(0, 8, (*shape, n_volumes)).astype("f4")
                    data = (anatomy[..., None] + noise) * brain[..., None]
                    for index, course in enumerate(courses):
                        data[2 + index, 3:6, 3:6] += 30 * course
                    if preprocessed is None:
                        write_nifti(
                            root / folder / f"{stem}_bold.nii.gz", data, affine, t_r=t_r, code=1
                        )
                        continue
                    (root / folder / f"{stem}_bold.nii.gz").touch()
                    base = preprocessed / folder / f"{stem}_space-{space}_res-2_desc-"
                    write_nifti(Path(f"{base}preproc_bold.nii.gz"), data, affine, t_r=t_r)
                    write_nifti(Path(f"{base}brain_mask.nii.gz"), brain.astype("u1"), affine)
                    Path(f"{base}preproc_bold.json").write_text(
                        json.dumps(
                            {"RepetitionTime": t_r, "SkullStripped": True, "StartTime": t_r / 2}
                        )
                    )
    return root


def _events(trial_types: Sequence[str], n_volumes: int, t_r: float) -> tuple[str, list[np.ndarray]]:
    """Alternate blocks of 6 s, and the time course of each trial type."""
    times = np.arange(n_volumes) * t_r
    lines, courses = ["onset\tduration\ttrial_type\n"], []
    courses = [np.zeros(n_volumes, "f4") for _ in trial_types]
    for index, onset in enumerate(np.arange(2.0, n_volumes * t_r - 8, 10.0)):
        kind = index % len(trial_types)
        lines.append(f"{onset:g}\t6\t{trial_types[kind]}\n")
        courses[kind] += (times >= onset + 4) & (times < onset + 10)
    return "".join(lines), courses
