"""Summarise each run in one pass, and cache everything that later measures need.

A run is read once, by one process, and never held beside another one. What is
kept of it lies in one ``.npz`` under the work directory, named by a hash of the
run's files (path, time, size), the settings and the reference grid.

Legend: V voxels of the mask, T volumes, K trial types, B supervoxels.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from threadpoolctl import threadpool_limits

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.errors import DataError, NoInputError
from fmrisynth.evaluation.runs import noise
from fmrisynth.evaluation.runs.atlas import Atlas
from fmrisynth.evaluation.runs.glm import GlmSettings, design_matrix, fit_run
from fmrisynth.evaluation.runs.grids import Grid, Rois, supervoxels_of, to_grid
from fmrisynth.preprocess.tissues import template_tissue_masks
from fmrisynth.runtime.files import make_folder, write_arrays
from fmrisynth.runtime.progress import track
from fmrisynth.runtime.workers import Map

__all__ = ["TISSUES", "RunRecord", "summarise_usable_runs"]

TISSUES = ("grey matter", "white matter", "cerebrospinal fluid")
"""Of which spectra are kept; grey matter is all that is surely neither of the others."""

_FORMAT = 6
"""Raised when what a record holds changes, so that older caches are not read."""


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
    autocorrelation : ndarray of shape (5,)
        Mean autocorrelation at lags 1 to 5.
    fwhm : ndarray of shape (3,)
        Smoothness along each voxel axis, in mm.
    spectrum : ndarray of shape (24,)
        Share of the power along the band.
    tissue_spectra : ndarray of shape (3, 24)
        The same in the voxels of each of `TISSUES`, by the template; NaN where the run does not
        lie in the template's space.
    dependent : tuple of str
        Trial types without an effect, since others add up to them.
    log_kurtosis, frame_peak, level_sd : float
        Tails and changes of level of what the modelled response leaves, see
        `fmrisynth.evaluation.runs.noise`.
    """

    run: Run
    path: Path
    trial_types: tuple[str, ...]
    temporal_sd: float
    tsnr: float
    autocorrelation: np.ndarray
    fwhm: np.ndarray
    spectrum: np.ndarray
    dependent: tuple[str, ...] = ()
    log_kurtosis: float = math.nan
    frame_peak: float = math.nan
    level_sd: float = math.nan
    tissue_spectra: np.ndarray = field(default_factory=lambda: np.full((3, 24), math.nan))

    def array(self, name: str) -> np.ndarray:
        """Read one array of the record, see `arrays`."""
        return self.arrays(name)[0]

    def arrays(self, *names: str) -> list[np.ndarray]:
        """Read arrays of the record; to open it takes longer than to read what lies in it.

        Parameters
        ----------
        *names : str
            ``mask`` (X, Y, Z) bool on the reference grid; ``effects`` (K, V),
            ``mean`` (V,) and ``sd`` (V,) on its voxels; ``regressors`` (T, K);
            ``supervoxel_keys`` (B, 3), ``supervoxel_effects`` (K, B) and
            ``supervoxel_series`` (B, T), percent; ``supervoxel_sd`` (B,), the mean
            of their voxels' ``sd``; ``parcels`` (L,) and
            ``parcel_series`` (L, T), of an atlas where one was given.

        Returns
        -------
        list of ndarray
        """
        with np.load(self.path) as stored:
            return [_stored(stored, name) for name in names]


def _stored(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Read one array of an open record."""
    if name == "mask":
        shape = tuple(stored["shape"])
        bits = np.unpackbits(stored["mask"], count=int(np.prod(shape)))
        return bits.astype(bool).reshape(shape)
    values = stored[name]
    return values.astype(np.float32) if values.dtype == np.float16 else values


def summarise_usable_runs(
    runs: Sequence[Run],
    grid: Grid,
    *,
    work_dir: Path,
    each: Map = map,
    settings: GlmSettings | None = None,
    atlas: Atlas | None = None,
    progress: bool = True,
) -> tuple[tuple[RunRecord | None, ...], Mapping[Path, str]]:
    """Summarise runs, in parallel, reading what an earlier call has cached.

    Parameters
    ----------
    runs : sequence of Run
        Runs, real or synthetic.
    grid : Grid
        Grid on which maps are kept; runs on another one are resampled.
    work_dir : Path
        Directory of the cache; created when missing.
    each : Map
        Summarises the runs; Python's own does it in this process.
    settings : GlmSettings or None
        Settings of the first-level model.
    atlas : Atlas or None
        Parcels whose mean series are kept as well.
    progress : bool
        Show a progress bar.

    Returns
    -------
    records : tuple of RunRecord or None
        In the order of ``runs``; None for a run that cannot be used.
    skipped : mapping
        BOLD image of each such run → why, with the file's name.
    """
    make_folder(work_dir)
    rois = Rois.of(atlas) if atlas is not None else None
    place = _Place(grid, settings or GlmSettings(), work_dir, rois)
    distinct = {id(run): run for run in runs}  # two generators may be the same runs
    result_of = {key: _cached(run, place) for key, run in distinct.items()}
    missing = {key: run for key, run in distinct.items() if result_of[key] is None}
    bar = partial(track, total=len(missing), desc="First level", disable=not progress)
    found = bar(each(partial(_attempt, place=place), missing.values())) if missing else ()
    result_of |= zip(missing, found, strict=True)
    results = [result_of[id(run)] for run in runs]
    skipped = {
        run.bold: why for run, why in zip(runs, results, strict=True) if isinstance(why, str)
    }
    records = tuple(
        # Another process gave back a copy of the run; runs are told apart by identity.
        replace(record, run=run) if isinstance(record, RunRecord) else None
        for run, record in zip(runs, results, strict=True)
    )
    return records, skipped


@dataclass(frozen=True)
class _Place:
    """Say how runs are summarised, and where their records lie."""

    grid: Grid
    settings: GlmSettings
    work_dir: Path
    rois: Rois | None

    def path(self, run: Run) -> Path:
        """Name the record of a run."""
        return self.work_dir / f"{run.label}_{_key(run, self.grid, self.settings)}.npz"


def _cached(run: Run, place: _Place) -> RunRecord | str | None:
    """Read the record that an earlier call has made of a run; None where there is none."""
    try:
        return _read(run, place.path(run), place.rois)
    except DataError as error:
        return str(error)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # not there yet, made without this atlas, or left damaged by a full disk


def _attempt(run: Run, place: _Place) -> RunRecord | str:
    """Summarise a run, or say why it cannot be used: one bad run must not stop all others."""
    try:
        path = place.path(run)
        # Each process is one worker of the pool: threads of BLAS would only fight.
        with threadpool_limits(1):
            arrays = _measure(run, place.grid, place.settings, place.rois)
        # Waiting for the disk would cost more than the model.
        write_arrays(path, arrays, durable=False)
        return _read(run, path, place.rois)
    except (DataError, NoInputError) as error:
        return str(error)


def _read(run: Run, path: Path, rois: Rois | None) -> RunRecord:
    with np.load(path) as stored:
        if rois is not None and str(stored["atlas"]) != rois.digest:
            raise KeyError("another atlas")
        return RunRecord(
            run=run,
            path=path,
            trial_types=tuple(str(name) for name in stored["trial_types"]),
            dependent=tuple(str(name) for name in stored["dependent"]),
            temporal_sd=float(stored["temporal_sd"]),
            tsnr=float(stored["tsnr"]),
            autocorrelation=stored["autocorrelation"],
            fwhm=stored["fwhm"],
            spectrum=stored["spectrum"],
            log_kurtosis=float(stored["log_kurtosis"]),
            frame_peak=float(stored["frame_peak"]),
            level_sd=float(stored["level_sd"]),
            tissue_spectra=stored["tissue_spectra"],
        )


def _key(run: Run, grid: Grid, settings: GlmSettings) -> str:
    parts: list[object] = [_FORMAT, settings, run.t_r, run.start_time, grid.shape]
    parts.append(np.round(grid.affine, 4).tolist())
    for file in (run.bold, run.events, run.mask, run.confounds, *run.siblings):
        if file is not None:
            try:
                status = file.stat()
            except OSError as error:
                raise DataError(f"{file} cannot be read any more: {error.strerror}") from None
            parts += [str(file.resolve()), status.st_mtime_ns, status.st_size]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def _measure(
    run: Run, grid: Grid, settings: GlmSettings, rois: Rois | None
) -> dict[str, np.ndarray]:
    """Read a run and compute everything a record holds."""
    bold = load_bold(run, brain_only=True)
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
    events = settings.modelled(events, run.task)
    design = design_matrix(events, n_volumes, run.t_r, run.start_time, settings)
    model = fit_run(data, design, settings)
    if len(events) and not model.trial_types:
        raise DataError(
            f"{run.events}: no event of this run has a response inside it, so no effect can be "
            "fitted"
        )
    sd = noise.temporal_sd(model.detrended)
    keys, average = supervoxels_of(inside, bold.affine)
    maps = np.stack([*model.effects, mean[inside], sd]).astype(np.float32)
    try:
        mask, maps = to_grid(maps, inside, bold.affine, grid)
    except DataError as error:
        raise DataError(f"{run.bold}: {error}") from None
    basis, _ = np.linalg.qr(model.regressors.astype(np.float32))
    residual = model.detrended - (model.detrended @ basis) @ basis.T
    standardised, left = noise.standardised(model.detrended), noise.standardised(residual)
    none = np.zeros(0, dtype=np.int32), np.zeros((0, n_volumes), dtype=np.float32)
    parcels = rois.series(model.detrended, inside, bold.affine) if rois is not None else none
    spectrum, tissue_spectra = _spectra(run, inside, standardised)
    return {
        "trial_types": np.array(model.trial_types, dtype=str),
        "dependent": np.array(model.dependent, dtype=str),
        "mask": np.packbits(mask),
        "shape": np.array(mask.shape),
        "effects": maps[:-2],
        "mean": maps[-2],
        "sd": maps[-1],
        "regressors": model.regressors.astype(np.float32),
        "supervoxel_keys": keys,
        "supervoxel_effects": (average @ model.effects.T).T.astype(np.float32),
        "supervoxel_series": (average @ model.detrended).astype(np.float16),
        "supervoxel_sd": (average @ sd).astype(np.float32),
        "parcels": parcels[0],
        "parcel_series": parcels[1].astype(np.float16),
        "atlas": np.array(rois.digest if rois is not None else ""),
        "temporal_sd": np.array(np.median(sd)),
        "tsnr": np.array(np.median(100.0 / np.maximum(sd, 1e-6))),
        "autocorrelation": noise.autocorrelation(standardised),
        "fwhm": noise.smoothness_fwhm(standardised, inside, voxel_sizes(bold.affine)),
        "spectrum": spectrum,
        "tissue_spectra": tissue_spectra,
        "log_kurtosis": np.array(noise.log_kurtosis(left)),
        "frame_peak": np.array(noise.frame_peak(left)),
        "level_sd": np.array(noise.level_sd(residual, run.t_r)),
    }


def _spectra(run: Run, inside: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the spectrum (24,) of standardised series (V, T), and that of each tissue."""
    masks = template_tissue_masks(run, inside)
    nowhere = np.zeros_like(inside)
    white, fluid = (masks.get(tissue, nowhere)[inside] for tissue in ("WM", "CSF"))
    chosen = (~white & ~fluid, white, fluid)
    powers = np.stack([noise.band_power(z[voxels]) for voxels in chosen])
    whole = noise.as_shares(powers.sum(axis=0))
    if not masks:
        return whole, np.full(powers.shape, math.nan)
    shares = [noise.as_shares(power) for power in powers]
    known = np.array([[voxels.any()] for voxels in chosen])
    return whole, np.where(known, shares, math.nan)
