"""One pass over each run: everything later figures need, cached on disk.

A run is read once, by one process, and never held beside another one. What is
kept of it lies in one ``.npz`` under the work directory, named by a hash of the
run's files (path, time, size), the settings and the reference grid.

Array legend: ``V`` voxels of the mask, ``T`` volumes, ``K`` trial types, ``B``
blocks of the coarse grid.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import warnings
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import sparse
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from fmrisynth.bids.atomic import make_folder, writing
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.errors import DataError
from fmrisynth.evaluation import noise
from fmrisynth.evaluation.glm import GlmSettings, design_matrix, fit_run

__all__ = ["Grid", "RunRecord", "coarse_blocks", "summarise_runs"]

_FORMAT = 1
"""Raised when what a record holds changes, so that older caches are not read."""

BLOCK_MM = 12.0
"""Edge of the coarse grid's cubes in world space, in mm."""


@dataclass(frozen=True)
class Grid:
    """The voxel grid on which participants are compared.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        Voxel to world, in mm.
    shape : tuple of int
        ``(X, Y, Z)``.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]

    def holds(self, run: Run) -> bool:
        """Tell whether a run lies on this very grid."""
        return tuple(run.shape) == self.shape and np.allclose(run.affine, self.affine, atol=1e-3)


@dataclass(frozen=True)
class RunRecord:
    """What evaluation keeps of one run.

    Attributes
    ----------
    run : Run
        The run on disk.
    path : Path
        The ``.npz`` that holds the arrays; `array` reads one of them.
    trial_types : tuple of str
        The ``K`` trial types with an effect.
    temporal_sd : float
        Median over voxels of the temporal standard deviation, in percent.
    tsnr : float
        Median over voxels of mean / temporal standard deviation.
    autocorrelation : ndarray, shape (5,)
        Mean autocorrelation at lags 1 to 5.
    fwhm : ndarray, shape (3,)
        Smoothness along each voxel axis, in mm.
    spectrum : ndarray, shape (24,)
        Share of the power along the band.
    """

    run: Run
    path: Path
    trial_types: tuple[str, ...]
    temporal_sd: float
    tsnr: float
    autocorrelation: np.ndarray
    fwhm: np.ndarray
    spectrum: np.ndarray

    def array(self, name: str) -> np.ndarray:
        """Read one array of the record.

        Parameters
        ----------
        name : {"mask", "effects", "mean", "sd", "regressors", "block_keys", "block_series"}
            ``mask`` (X, Y, Z) bool on the reference grid; ``effects`` (K, V),
            ``mean`` (V,) and ``sd`` (V,) on its voxels; ``regressors`` (T, K);
            ``block_keys`` (B, 3) and ``block_series`` (B, T), percent.

        Returns
        -------
        ndarray
        """
        with np.load(self.path) as stored:
            if name == "mask":
                shape = tuple(stored["shape"])
                bits = np.unpackbits(stored["mask"], count=int(np.prod(shape)))
                return bits.astype(bool).reshape(shape)
            values = stored[name]
        return values.astype(np.float32) if values.dtype == np.float16 else values


def summarise_runs(
    runs: Sequence[Run],
    grid: Grid,
    *,
    work_dir: Path,
    nprocs: int = 1,
    settings: GlmSettings | None = None,
    progress: bool = True,
) -> tuple[RunRecord, ...]:
    """Summarise runs, in parallel, reading what an earlier call has cached.

    Parameters
    ----------
    runs : sequence of Run
        Runs, real or synthetic.
    grid : Grid
        Grid on which maps are kept; runs on another one are resampled.
    work_dir : Path
        Directory of the cache; created when missing.
    nprocs : int
        Number of processes; with 1 everything happens in this one.
    settings : GlmSettings or None
        Settings of the first-level model.
    progress : bool
        Show a progress bar.

    Returns
    -------
    tuple of RunRecord
        In the order of ``runs``.

    Raises
    ------
    DataError
        When a run cannot be read or fitted; the message names the file.
    """
    make_folder(work_dir)
    task = partial(_summarise, grid=grid, settings=settings or GlmSettings(), work_dir=work_dir)
    bar = partial(
        tqdm, total=len(runs), desc="first level", unit="run", mininterval=1.0, disable=not progress
    )
    if nprocs <= 1 or len(runs) < 2:
        return tuple(bar(map(task, runs)))
    # "spawn": the caller may hold threads and devices that a fork would break.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(nprocs, len(runs)), mp_context=context) as pool:
        return tuple(bar(pool.map(task, runs, chunksize=1)))


def coarse_blocks(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
    """Group the mask's voxels into cubes of 12 mm that are the same for every grid of a space.

    Parameters
    ----------
    mask : ndarray of bool, shape (X, Y, Z)
        Mask with ``V`` voxels.
    affine : ndarray, shape (4, 4)
        Voxel to world, in mm.

    Returns
    -------
    keys : ndarray of int, shape (B, 3)
        Place of each cube in world space, in units of 12 mm.
    average : sparse array, shape (B, V)
        Averages voxels into cubes.
    """
    world = apply_affine(affine, np.argwhere(mask))
    cubes = np.floor(world / BLOCK_MM + 1e-6).astype(np.int16)
    keys, index, counts = np.unique(cubes, axis=0, return_inverse=True, return_counts=True)
    index = index.ravel()
    full = counts >= 0.25 * counts.max()  # slivers at the brain's edge are mostly noise
    average = sparse.csr_array(
        ((1.0 / counts[index]).astype(np.float32), (index, np.arange(len(index)))),
        shape=(len(keys), len(index)),
    )
    return keys[full], average[np.flatnonzero(full)]


def _summarise(run: Run, *, grid: Grid, settings: GlmSettings, work_dir: Path) -> RunRecord:
    path = work_dir / f"{run.label}_{_key(run, grid, settings)}.npz"
    try:
        return _read(run, path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there yet, or left damaged by a full disk
    # Each process is one worker of the pool: threads of BLAS would only fight.
    with threadpool_limits(1):
        arrays = _measure(run, grid, settings)
    # A cache needs no more than a rename: waiting for the disk would cost more than the model.
    partial_path = path.with_name(f".{os.getpid()}_{path.name}")
    with writing(path):
        with partial_path.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        partial_path.replace(path)
    return _read(run, path)


def _read(run: Run, path: Path) -> RunRecord:
    with np.load(path) as stored:
        return RunRecord(
            run=run,
            path=path,
            trial_types=tuple(str(name) for name in stored["trial_types"]),
            temporal_sd=float(stored["temporal_sd"]),
            tsnr=float(stored["tsnr"]),
            autocorrelation=stored["autocorrelation"],
            fwhm=stored["fwhm"],
            spectrum=stored["spectrum"],
        )


def _key(run: Run, grid: Grid, settings: GlmSettings) -> str:
    parts: list[object] = [_FORMAT, settings, run.t_r, run.start_time, grid.shape]
    parts.append(np.round(grid.affine, 4).tolist())
    for file in (run.bold, run.events, run.mask):
        if file is not None:
            status = file.stat()
            parts += [str(file.resolve()), status.st_mtime_ns, status.st_size]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def _measure(run: Run, grid: Grid, settings: GlmSettings) -> dict[str, np.ndarray]:
    """Read a run and compute everything a record holds."""
    bold = load_bold(run)
    mean = bold.data.mean(axis=3)
    inside = bold.mask & np.isfinite(mean)
    # A voxel with next to no signal has no percent signal change worth the name.
    inside &= mean > 0.05 * np.median(mean[inside]) if inside.any() else False
    if not inside.any():
        raise DataError(
            f"{run.bold}: no voxel of the mask has a positive mean, so no percent signal change "
            "can be computed; check the mask and the scaling of this run"
        )
    data = bold.data[inside]
    n_volumes = data.shape[1]
    events = read_events(run.events, duration=n_volumes * run.t_r)
    design = design_matrix(events, n_volumes, run.t_r, run.start_time, settings)
    try:
        model = fit_run(data, design, settings)
    except DataError as error:
        raise DataError(f"{run.events}: {error}") from None
    sd = noise.temporal_sd(model.detrended)
    keys, average = coarse_blocks(inside, bold.affine)
    maps = np.stack([*model.effects, mean[inside], sd]).astype(np.float32)
    mask, maps = _to_grid(maps, inside, bold.affine, grid)
    return {
        "trial_types": np.array(model.trial_types, dtype=str),
        "mask": np.packbits(mask),
        "shape": np.array(mask.shape),
        "effects": maps[:-2],
        "mean": maps[-2],
        "sd": maps[-1],
        "regressors": model.regressors.astype(np.float32),
        "block_keys": keys,
        "block_series": (average @ model.detrended).astype(np.float16),
        "temporal_sd": np.array(np.median(sd)),
        "tsnr": np.array(np.median(100.0 / np.maximum(sd, 1e-6))),
        "autocorrelation": noise.autocorrelation(model.detrended),
        "fwhm": noise.smoothness_fwhm(model.detrended, inside, voxel_sizes(bold.affine)),
        "spectrum": noise.power_spectrum(model.detrended),
    }


def _to_grid(
    maps: np.ndarray, mask: np.ndarray, affine: np.ndarray, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Bring maps (M, V) on a mask to the reference grid: the mask there and (M, V') on it."""
    if mask.shape == grid.shape and np.allclose(affine, grid.affine, atol=1e-3):
        return mask, maps
    from nilearn.image import resample_img

    volumes = np.zeros((*mask.shape, len(maps)), dtype=np.float32)
    volumes[mask] = maps.T
    resample = partial(
        resample_img, target_affine=grid.affine, target_shape=grid.shape, copy_header=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moved = resample(nib.Nifti1Image(volumes, affine), interpolation="linear")
        moved_mask = resample(
            nib.Nifti1Image(mask.astype(np.uint8), affine), interpolation="nearest"
        )
    new_mask = moved_mask.get_fdata() > 0.5
    if not new_mask.any():
        raise DataError(
            "a run does not overlap the grid of the first one; runs to be compared must share "
            "one space (use --space to choose it)"
        )
    return new_mask, moved.get_fdata(dtype=np.float32)[new_mask].T
