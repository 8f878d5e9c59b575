"""How real the noise of a BIDS dataset is: tails, levels and memory of its runs, side by side.

Every BOLD run that is found is measured in its brain mask, resting state included. The signal is
in percent of the median voxel's mean, without a constant and cosines slower than 128 s. The first
dataset is the reference: for each other one, the share of its runs that lie within the range of
the first one's runs is given.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fmrisynth.bids.dataset import BoldRun
from fmrisynth.bids.images import Bold, load_bold
from fmrisynth.bids.search import find_bold_runs
from fmrisynth.bids.selection import Selection

CUTOFF = 128.0  # s
WINDOW = 20.0  # s
MEANINGS = {
    "frames": "energy of a volume (voxels scaled to SD 1), largest / median",
    "voxels": "variance of a voxel, mean / median",
    "level": "log of the median voxel's SD in percent",
    "lag1": "autocorrelation at one volume, median voxel",
    "fwhm": "mm, from the correlation of neighbouring voxels",
    "kurtosis": "excess kurtosis over time, median voxel",
    "windows": f"SD over windows of {WINDOW:g} s of the mean log SD of the voxels",
    "common": "variance of the mean of all voxels (scaled to SD 1)",
}


def measure(bold: Bold) -> dict[str, float]:
    """Return the statistics of one run, named as in `MEANINGS`."""
    values = bold.data[bold.mask].T.astype(np.float64)
    values *= 100.0 / np.median(values.mean(axis=0))
    residual = without_drift(values, bold.t_r)
    residual = residual[:, residual.std(axis=0) > 0]
    scaled = residual / residual.std(axis=0)
    energy = np.square(scaled).mean(axis=1)
    variance = np.square(residual).mean(axis=0)
    n_in_window = max(4, round(WINDOW / bold.t_r))
    n_windows = len(residual) // n_in_window
    windows = residual[: n_windows * n_in_window].reshape(n_windows, n_in_window, -1)
    return {
        "frames": energy.max() / np.median(energy),
        "voxels": variance.mean() / np.median(variance),
        "level": 0.5 * np.log(np.median(variance)),
        "lag1": float(np.median((scaled[1:] * scaled[:-1]).mean(axis=0))),
        "fwhm": fwhm(bold, without_drift(bold.data[bold.mask].T, bold.t_r)),
        "kurtosis": float(np.median(np.mean(scaled**4, axis=0))) - 3.0,
        "windows": np.log(windows.std(axis=1) + 1e-12).mean(axis=1).std(),
        "common": scaled.mean(axis=1).var(),
    }


def without_drift(values: np.ndarray, t_r: float) -> np.ndarray:
    """Return values (T, V) less their projection on a constant and slow cosines."""
    place = np.arange(len(values))[:, None] + 0.5
    n_cosines = int(2.0 * len(values) * t_r / CUTOFF) + 1
    drift = np.cos(np.pi * place * np.arange(n_cosines) / len(values))
    return values - drift @ np.linalg.lstsq(drift, values, rcond=None)[0]


def fwhm(bold: Bold, residual: np.ndarray) -> float:
    """Return the smoothness in mm: of the Gaussian whose noise has neighbours as correlated."""
    volumes = np.full((*bold.mask.shape, len(residual)), np.nan, np.float32)
    volumes[bold.mask] = (residual / np.maximum(residual.std(axis=0), 1e-12)).T
    correlations = []
    for axis in range(3):
        moved = np.moveaxis(volumes, axis, 0)
        correlations.append(np.nanmean((moved[1:] * moved[:-1]).mean(axis=-1)))
    edge = float(np.mean(np.linalg.norm(bold.affine[:3, :3], axis=0)))
    correlation = float(np.clip(np.mean(correlations), 1e-3, 0.999))
    return edge * float(np.sqrt(-2.0 * np.log(2.0) / np.log(correlation)))


def measure_dataset(folder: Path, tasks: tuple[str, ...], n_runs: int) -> dict[str, np.ndarray]:
    """Return each statistic of the runs of a dataset, one value per run."""
    runs = spread(find_bold_runs(folder, selection=Selection(tasks=tasks)), n_runs)
    rows = [measure(load_bold(run)) for run in runs]
    return {name: np.array([row[name] for row in rows]) for name in MEANINGS}


def spread(runs: tuple[BoldRun, ...], n_runs: int) -> list[BoldRun]:
    """Choose at most `n_runs` runs, spread evenly over the dataset; 0: all."""
    if not n_runs or len(runs) <= n_runs:
        return list(runs)
    return [runs[i] for i in np.linspace(0, len(runs) - 1, n_runs).round().astype(int)]


def table(measured: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Return the statistics of all datasets as a table in Markdown."""
    names = list(measured)
    lines = [
        "| statistic | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        "| runs | " + " | ".join(str(len(m["level"])) for m in measured.values()) + " |",
    ]
    reference = measured[names[0]]
    for statistic in MEANINGS:
        low, high = reference[statistic].min(), reference[statistic].max()
        cells = []
        for name in names:
            values = measured[name][statistic]
            cell = f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"
            if name != names[0]:
                inside = np.mean((values >= low) & (values <= high))
                cell += f", {inside:.0%} within"
            cells.append(cell)
        lines.append(f"| {statistic} | " + " | ".join(cells) + " |")
    spreads = [
        f"{m['level'].std(ddof=1):.3f}" if len(m["level"]) > 1 else "n/a" for m in measured.values()
    ]
    lines.append("| SD of level over runs | " + " | ".join(spreads) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure the datasets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dirs", nargs="+", type=Path, metavar="BIDS_DIR")
    parser.add_argument("--task", nargs="*", default=[], help="tasks to measure; all by default")
    parser.add_argument("--n-runs", type=int, default=0, help="runs per dataset; 0: all")
    options = parser.parse_args()
    measured = {}
    for folder in options.bids_dirs:
        label = folder.resolve().name
        measured[label] = measure_dataset(folder, tuple(options.task), options.n_runs)
    for name, meaning in MEANINGS.items():
        print(f"{name}: {meaning}")
    print()
    print(table(measured))


if __name__ == "__main__":
    main()
