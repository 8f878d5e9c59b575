"""Cache the residuals of many runs on the model grid, and read them by memory mapping."""

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
from fmrisynth.preprocess.design import own_regressors
from fmrisynth.preprocess.grid import Grid, continue_outside, resample
from fmrisynth.runtime.files import atomic_path
from fmrisynth.runtime.workers import worker_pool

__all__ = ["Frames", "RunData", "load_run_data", "prepare_runs", "run_key"]


@dataclass(frozen=True)
class RunData:
    """One run on the model grid; volumes and maps stay on the disk, and are read each time.

    Attributes
    ----------
    run : Run
        The run on disk.
    folder : Path
        Holds an array ``.npy`` for each of the properties.
    """

    run: Run
    folder: Path

    @property
    def frames(self) -> np.ndarray:
        """Residuals (%), or whole volumes, as ``normalisation`` says, (T, X, Y, Z) float16.

        The file is mapped anew each time: kept open, many runs would exhaust the
        files that a process may have open.
        """
        frames: np.ndarray = np.load(self.file("frames"), mmap_mode="r")
        return frames

    @property
    def mean(self) -> np.ndarray:
        """The carrier's mean relative to its median in the brain, (X, Y, Z) float32."""
        mean: np.ndarray = np.load(self.file("mean"))
        return mean

    @property
    def noise_sd(self) -> np.ndarray:
        """Temporal SD (%) of the residual without evoked responses, (X, Y, Z) float32."""
        noise_sd: np.ndarray = np.load(self.file("noise_sd"))
        return noise_sd

    @property
    def drift_sd(self) -> np.ndarray:
        """Temporal SD (%) of the drift, (X, Y, Z) float32."""
        drift_sd: np.ndarray = np.load(self.file("drift_sd"))
        return drift_sd

    def file(self, name: str) -> Path:
        """Name the file of a property."""
        return self.folder / f"{name}.npy"


def run_key(run: Run, grid: Grid, config: PreprocessConfig) -> str:
    """Hash everything that a run's cached residual depends on."""
    used = (run.bold, run.events, run.mask, run.confounds, *run.siblings)
    files = [path for path in used if path is not None]
    content: dict[str, Any] = {
        "files": [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files],
        "t_r": run.t_r,
        "grid": [grid.shape, grid.affine.tolist(), hashlib.sha256(grid.mask.tobytes()).hexdigest()],
        "config": asdict(config),
        "format": 3,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def load_run_data(run: Run, grid: Grid, config: PreprocessConfig, cache: Path) -> RunData:
    """Read a run's residual from the cache, or compute and cache it.

    Parameters
    ----------
    run : Run
        The run.
    grid : Grid
        The model grid.
    config : PreprocessConfig
        Voxel size, high-pass frequency and normalisation.
    cache : Path
        Folder of the cache; each run has a folder in it.

    Raises
    ------
    DataError
        The run cannot be read.
    OutputError, InputOutputError
        The cache cannot be written.
    """
    data = RunData(run, cache / run_key(run, grid, config))
    if not data.file("frames").is_file():  # it is written last: where it is, the others are
        data.folder.mkdir(parents=True, exist_ok=True)
        for name, array in _compute(run, grid, config).items():
            with atomic_path(data.file(name)) as temporary, open(temporary, "wb") as stream:
                np.save(stream, array)
    return data


def _compute(run: Run, grid: Grid, config: PreprocessConfig) -> dict[str, np.ndarray]:
    """Split a run and resample the parts onto the model grid; ``frames`` is the last entry."""
    bold = load_bold(run, brain_only=True)
    evoked = own_regressors(run, bold.data.shape[3], config.high_pass)
    carrier, residual = split(bold, config.high_pass, evoked)
    median = np.median(carrier.mean[carrier.mask])

    def on_grid(data: np.ndarray) -> np.ndarray:
        resampled = resample(data, carrier.affine, grid.affine, grid.shape)
        resampled[~grid.mask] = 0
        return resampled

    if config.normalisation == "volume":
        residual = np.where(carrier.mask[..., None], bold.data / median, 0).astype(np.float32)
    frames = np.moveaxis(on_grid(residual), 3, 0).astype(np.float16)
    return {
        "mean": on_grid(carrier.mean / median),
        "noise_sd": on_grid(carrier.noise_sd),
        "drift_sd": on_grid(np.sqrt(np.square(carrier.drift).sum(0) / bold.data.shape[3])),
        "frames": np.ascontiguousarray(frames),
    }


def _prepare(arguments: tuple[Run, Grid, PreprocessConfig, Path]) -> str | None:
    """Cache one run in a worker process; return the reason of a failure, else None."""
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
    """Cache the residuals of all runs, in parallel.

    Parameters
    ----------
    runs : sequence of Run
        The runs.
    grid : Grid
        The model grid.
    config : PreprocessConfig
        As in `load_run_data`.
    cache : Path
        Folder of the cache.
    nprocs : int
        Number of processes.
    progress : callable
        Wraps the iterable of runs, for example in a progress bar.

    Returns
    -------
    data : list of RunData
        The runs that can be read, in the order of `runs`.
    failed : dict of Path to str
        Why each of the others cannot be read, by its image.
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
    """All volumes of a set of runs as one long sequence, continued beyond the brain's edge.

    Parameters
    ----------
    runs : sequence of RunData
        The runs.
    scale : float
        Divisor of all volumes; see `global_scale`.
    mask : ndarray of shape (X, Y, Z), bool
        The brain.
    edge : int
        Edge of the autoencoder's blocks, voxels.
    """

    def __init__(self, runs: Sequence[RunData], scale: float, mask: np.ndarray, edge: int) -> None:
        self._runs = list(runs)
        self._lengths = np.array([len(run.frames) for run in runs])
        self._ends = np.cumsum(self._lengths)
        self.scale, self.mask, self.edge = scale, mask, edge

    def __len__(self) -> int:
        return int(self._ends[-1])

    def frames(self, indices: np.ndarray) -> np.ndarray:
        """Read volumes (B, X, Y, Z), float32, at B positions of the long sequence."""
        which = np.searchsorted(self._ends, indices, side="right")
        inside = indices - (self._ends[which] - self._lengths[which])
        # copies: what is mapped keeps the file of its run open
        frames = np.stack(
            [np.array(self._runs[w].frames[i]) for w, i in zip(which, inside, strict=True)]
        )
        covered = self.mask & (frames != 0)
        return continue_outside(frames, covered, self.edge) / self.scale

    @staticmethod
    def global_scale(runs: Sequence[RunData], mask: np.ndarray, seed: int = 0) -> float:
        """Measure the standard deviation inside the brain over a seeded sample of volumes.

        Parameters
        ----------
        runs : sequence of RunData
            The runs, of which at most 64 are read, 8 volumes or so of each.
        mask : ndarray of shape (X, Y, Z), bool
            The brain.
        seed : int
            Seed of the sample.
        """
        rng = np.random.default_rng(seed)
        sampled = rng.choice(len(runs), min(len(runs), 64), replace=False)
        volumes = [runs[i].frames[:: max(1, len(runs[i].frames) // 8)][:, mask] for i in sampled]
        values = np.concatenate(volumes).astype(np.float32)
        return float(np.sqrt(np.mean(np.square(values))))
