"""Draw real beside synthetic maps and a time course, from an output of both levels.

python examples/real_synthetic.py BIDS_DIR OUTPUT_DIR CONDITION PICTURE

CONDITION is a task of ``OUTPUT_DIR/group/maps``, such as WM of the demo. The picture is that of
the README: maps are group means over held-out participants, courses are means around the events,
over participants and the voxels whose effects are largest in the mean of both maps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.signal import clean

import fmrisynth
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import find_synthetic_runs

SLICES, VOXELS = 6, 60
EPOCH = np.arange(-4.0, 21.0)  # s around the onset
SOURCES = {"real": "Real", "fmrisynth": "Synthetic"}
COLOURS = {"real": "#37474f", "fmrisynth": "#00897b"}


def draw(bids_dir: Path, output_dir: Path, condition: str, picture: Path) -> None:
    """Draw maps and courses of a condition."""
    folder = output_dir / "group" / "maps"
    maps = {s: _map(folder / f"source-{s}_condition-{condition}_effect.nii.gz") for s in SOURCES}
    brain = nib.load(folder / "mask.nii.gz").get_fdata() > 0
    strongest = np.argsort((maps["real"] + maps["fmrisynth"])[brain])[-VOXELS:]
    pairs = _pairs(bids_dir, output_dir, condition)
    courses = {
        source: np.stack([_course(pair[side], brain, strongest) for pair in pairs])
        for side, source in enumerate(SOURCES)
    }
    participants = [real.participant for real, _ in pairs]
    figure = plt.figure(figsize=(9.6, 3.4), layout="constrained", facecolor="white")
    left, right = figure.subfigures(1, 2, width_ratios=[2.3, 1])
    _draw_maps(left, maps, brain, condition)
    _draw_courses(right.subplots(), courses, participants)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _map(path: Path) -> np.ndarray:
    """Read a map, percent signal change."""
    return np.nan_to_num(nib.load(path).get_fdata(dtype=np.float32))


def _pairs(bids_dir: Path, output_dir: Path, task: str) -> list[tuple[Run, Run]]:
    """Find the synthetic runs of a task, each behind the real run that it imitates."""
    by_label = {run.label: run for run in fmrisynth.find_runs(bids_dir).runs}
    synthetic = [run for run in find_synthetic_runs(output_dir) if run.task == task]
    if not synthetic:
        sys.exit(f"{output_dir}: no synthetic run of the task {task}")
    return [(by_label[run.label], run) for run in synthetic if run.label in by_label]


def _course(run: Run, brain: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Average the signal around the events of a run, percent of its mean, without drift."""
    series = nib.load(run.bold).get_fdata(dtype=np.float32)[brain][voxels]
    psc = 100 * (series / series.mean(axis=1, keepdims=True) - 1)
    course = clean(psc.mean(axis=0)[:, None], t_r=run.t_r, high_pass=1 / 128, standardize=None)
    onsets = pd.read_csv(run.events, sep="\t")["onset"].to_numpy()
    time = run.start_time + run.t_r * np.arange(run.n_volumes)
    epochs = np.interp(onsets[:, None] + EPOCH, time, course[:, 0], left=np.nan, right=np.nan)
    mean: np.ndarray = np.nanmean(epochs, axis=0)
    return mean


def _draw_maps(
    figure: mpl.figure.FigureBase, maps: dict[str, np.ndarray], brain: np.ndarray, condition: str
) -> None:
    """Draw axial slices of both maps on one scale."""
    axes = figure.subplots(len(maps), SLICES)
    heights = np.linspace(*np.flatnonzero(brain.any((0, 1)))[[0, -1]], SLICES + 4)[3:-1].astype(int)
    limit = float(np.quantile(np.abs(maps["real"][brain]), 0.995))
    inside = np.ix_(*[np.flatnonzero(brain.any(other)) for other in ((1, 2), (0, 2))])
    for row, (source, values) in zip(axes, maps.items(), strict=True):
        for axis, z in zip(row, heights, strict=True):
            shown = np.where(brain, values, np.nan)[:, :, z][inside].T
            image = axis.imshow(shown, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.contour(brain[:, :, z][inside].T, levels=[0.5], colors="#90a4ae", linewidths=0.7)
            axis.set_axis_off()
        row[0].text(-0.12, 0.5, SOURCES[source], rotation=90, ha="center", va="center",
                    transform=row[0].transAxes)  # fmt: skip
    figure.colorbar(
        image, ax=axes, label=f"{condition}: effect, %", orientation="horizontal", shrink=0.5
    )


def _draw_courses(
    axis: plt.Axes, courses: dict[str, np.ndarray], participants: Sequence[str]
) -> None:
    """Draw means over participants with their standard errors."""
    names = sorted(set(participants))
    for source, runs in courses.items():
        own = [[p == name for p in participants] for name in names]
        each = np.stack([runs[rows].mean(axis=0) for rows in own])
        mean, error = each.mean(axis=0), each.std(axis=0, ddof=1) / len(names) ** 0.5
        axis.fill_between(EPOCH, mean - error, mean + error, color=COLOURS[source], alpha=0.2, lw=0)
        axis.plot(EPOCH, mean, color=COLOURS[source], label=SOURCES[source], lw=1.8)
    axis.axvline(0, color="#b0bec5", lw=1)
    axis.set(xlabel="s after the onset of an event", ylabel="signal, % (± standard error)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    draw(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
