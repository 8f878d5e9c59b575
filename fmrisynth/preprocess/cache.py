"""Residuals of many runs on disk, on the model grid, read by memory mapping."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.images import load_bold
from fmrisynth.config.model import PreprocessConfig
from fmrisynth.errors import DataError
from fmrisynth.preprocess.carrier import split
from fmrisynth.preprocess.grid import Grid, resample
from fmrisynth.runtime.files import atomic_path
from fmrisynth.runtime.workers import worker_pool

__all__ = ["Frames", "RunData", "load_run_data", "prepare_runs", "run_key"]


@dataclass(frozen=True)
class RunData:
    """One run on the model grid, memory-mapped.

    Attributes
    ----------
    run : Run
        Where it comes from.
    frames : numpy.ndarray
        (T, X, Y, Z) float16: residuals in %, or whole volumes.
    mean, noise_sd : numpy.ndarray
        (X, Y, Z) float32: the carrier's mean relative to its brain median, and
        the residual's standard deviation (%).
    """

    run: Run
    frames: np.ndarray
    mean: np.ndarray
    noise_sd: np.ndarray


def run_key(run: Run, grid: Grid, config: PreprocessConfig) -> str:
    """Hash of all that a run's cached residual depends on."""
    files = [run.bold] + ([run.mask] if run.mask else [])
    content: dict[str, Any] = {
        "files": [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files],
        "t_r": run.t_r,
        "grid": [grid.shape, grid.affine.tolist(), hashlib.sha256(grid.mask.tobytes()).hexdigest()],
        "config": asdict(config),
        "format": 1,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def load_run_data(run: Run, grid: Grid, config: PreprocessConfig, cache: Path) -> RunData:
    """Read a run's residual from the cache, or compute and cache it."""
    folder = cache / run_key(run, grid, config)
    paths = {name: folder / f"{name}.npy" for name in ("mean", "noise_sd", "frames")}
    if not paths["frames"].is_file():  # written last: there when all are
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in _compute(run, grid, config).items():
            with atomic_path(paths[name]) as temporary, open(temporary, "wb") as stream:
                np.save(stream, array)
    frames = np.load(paths["frames"], mmap_mode="r")
    return RunData(run, frames, np.load(paths["mean"]), np.load(paths["noise_sd"]))


def _compute(run: Run, grid: Grid, config: PreprocessConfig) -> dict[str, np.ndarray]:
    """Split a run and bring it onto the model grid; ``frames`` is the last entry."""
    bold = load_bold(run)
    carrier, residual = split(bold, config.high_pass)
    median = np.median(carrier.mean[carrier.mask])

    def onto(data: np.ndarray) -> np.ndarray:
        moved = resample(data, carrier.affine, grid.affine, grid.shape)
        moved[~grid.mask] = 0
        return moved

    if config.normalisation == "volume":
        residual = np.where(carrier.mask[..., None], bold.data / median, 0).astype(np.float32)
    frames = np.moveaxis(onto(residual), 3, 0).astype(np.float16)
    return {
        "mean": onto(carrier.mean / median),
        "noise_sd": onto(carrier.noise_sd),
        "frames": np.ascontiguousarray(frames),
    }


def _prepare(arguments: tuple[Run, Grid, PreprocessConfig, Path]) -> str | None:
    """Worker: fill the cache for one run; return why it failed, if it did."""
    try:
        load_run_data(*arguments)
    except DataError as error:
        return str(error)
    return None


def prepare_runs(
    runs: Sequence[Run],
    grid: Grid,
    config: PreprocessConfig,
    cache: Path,
    *,
    nprocs: int,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> tuple[list[RunData], dict[Path, str]]:
    """Fill the cache for all runs, in parallel.

    Returns
    -------
    data : list of RunData
        One for each run that could be read, in the order of `runs`.
    failed : dict
        Why each of the others could not.
    """
    jobs = [(run, grid, config, cache) for run in runs]
    if nprocs > 1:
        with worker_pool(nprocs) as pool:
            problems = list(progress(pool.map(_prepare, jobs)))
    else:
        problems = [_prepare(job) for job in progress(jobs)]
    failed = {r.bold: p for r, p in zip(runs, problems, strict=True) if p is not None}
    data = [load_run_data(run, grid, config, cache) for run in runs if run.bold not in failed]
    return data, failed


class Frames:
    """All volumes of a set of runs as one long sequence, scaled to unit variance.

    Parameters
    ----------
    runs : sequence of RunData
        Memory-mapped runs.
    scale : float
        One global divisor for all of them; see `global_scale`.
    """

    def __init__(self, runs: Sequence[RunData], scale: float) -> None:
        self._frames = [run.frames for run in runs]
        self._ends = np.cumsum([len(f) for f in self._frames])
        self.scale = scale

    def __len__(self) -> int:
        return int(self._ends[-1])

    def frames(self, indices: np.ndarray) -> np.ndarray:
        """Volumes (B, X, Y, Z) float32 at positions of the long sequence."""
        which = np.searchsorted(self._ends, indices, side="right")
        starts = self._ends[which] - np.array([len(self._frames[w]) for w in which])
        volumes = [self._frames[w][i - s] for w, i, s in zip(which, indices, starts, strict=True)]
        return np.stack(volumes).astype(np.float32) / self.scale

    @staticmethod
    def global_scale(runs: Sequence[RunData], mask: np.ndarray, seed: int = 0) -> float:
        """Measure the standard deviation inside the brain over a seeded sample of volumes."""
        generator = np.random.default_rng(seed)
        chosen = generator.choice(len(runs), min(len(runs), 64), replace=False)
        samples = [runs[i].frames[:: max(1, len(runs[i].frames) // 8)][:, mask] for i in chosen]
        values = np.concatenate(samples).astype(np.float32)
        return float(np.sqrt(np.mean(np.square(values))))
