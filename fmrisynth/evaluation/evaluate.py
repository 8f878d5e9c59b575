"""Compare generators with real held-out participants, with real training ones as reference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from threadpoolctl import threadpool_limits

from fmrisynth.bids.dataset import Run
from fmrisynth.errors import DataError, UsageError
from fmrisynth.evaluation.cohort.cohort import Cohort, build_cohort, most_common_grid
from fmrisynth.evaluation.cohort.contrasts import Contrast
from fmrisynth.evaluation.cohort.notices import say_dependent, say_samples, say_skipped
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.cohort.sources import (
    Matched,
    assign_roles,
    match_runs,
    runs_for_training,
    runs_to_compare,
)
from fmrisynth.evaluation.measures.feature_maps import feature_maps
from fmrisynth.evaluation.measures.identification import identification_matrix
from fmrisynth.evaluation.measures.individuals import participant_matrices
from fmrisynth.evaluation.measures.rsa import dissimilarity
from fmrisynth.evaluation.measures.second_level import z_map
from fmrisynth.evaluation.measures.timecourses import mean_image
from fmrisynth.evaluation.metrics.compare import compare_sources
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimates
from fmrisynth.evaluation.metrics.measurements import Measurements, measure, without_halves
from fmrisynth.evaluation.metrics.pooling import pool_samples
from fmrisynth.evaluation.result import Evaluation, Spectra
from fmrisynth.evaluation.runs.atlas import Atlas
from fmrisynth.evaluation.runs.glm import GlmSettings
from fmrisynth.evaluation.runs.grids import Grid
from fmrisynth.evaluation.runs.records import RunRecord, summarise_usable_runs
from fmrisynth.runtime.files import make_folder
from fmrisynth.runtime.workers import Map, spread

__all__ = ["evaluate"]


def evaluate(
    real_held_out: Sequence[Run],
    real_training: Sequence[Run],
    generators: Mapping[str, Sequence[Run]],
    *,
    work_dir: str | Path,
    nprocs: int = 1,
    each: Map | None = None,
    seed: int = 0,
    settings: GlmSettings | None = None,
    contrasts: Sequence[Contrast] = (),
    atlas: Atlas | None = None,
    progress: bool = True,
) -> Evaluation:
    """Compare generators with real participants they have not seen.

    Parameters
    ----------
    real_held_out : sequence of Run
        Real runs of participants no generator has learned from. When empty,
        the training participants themselves are compared with, ceilings are
        left out, and the result says so in ``notices``.
    real_training : sequence of Run
        Real runs of the participants the generators have learned from.
    generators : mapping
        Name → synthetic runs; those of held-out participants are compared, or those
        of new participants, who stand beside no real one, with all of them. Estimates are
        means over the samples that a generator has of every run. The first generator is the
        one under test.
    work_dir : str or Path
        Directory for the cache of first-level results.
    nprocs : int
        Number of processes.
    each : Map or None
        Of processes that have been started already, from `fmrisynth.runtime.workers.spread`;
        `nprocs` then says nothing.
    seed : int
        Seed of every draw (bootstrap, shuffles, training participants).
    settings : GlmSettings or None
        Settings of the first-level model.
    contrasts : sequence of Contrast
        Compared beside the conditions, in metrics whose names end in ``_contrast``.
    atlas : Atlas or None
        Parcels for the time courses, in the runs' space; without one the regions
        are made of the supervoxels in which a condition's real effect is largest.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        When a participant is both held out and trained on, there is nothing
        to compare, or a contrast does not fit the runs.
    DataError
        When no run of a source can be read; the message names the files. A
        single bad run is left out, and listed in ``skipped`` and ``notices``.
    """
    work_dir = Path(work_dir)
    settings = settings or GlmSettings()
    notices: list[str] = []
    reference, training = assign_roles(real_held_out, real_training, generators, seed, notices)
    sides = _sides(reference, training, generators)
    grid = most_common_grid(reference)
    with nullcontext(each) if each is not None else spread(nprocs) as workers:
        records, skipped = _summaries(
            sides,
            grid,
            work_dir=work_dir,
            each=workers,
            settings=settings,
            atlas=atlas,
            progress=progress,
        )
        matched = match_runs(
            records[REAL], records[TRAINING], {name: records[name] for name in generators}
        )
        notices += say_skipped(skipped)
        notices += say_samples(matched)
        notices += say_dependent(records[REAL])

        def cohort_of(matched: Matched, folder: Path, notices: list[str]) -> Cohort:
            make_folder(folder)
            return replace(
                build_cohort(matched, grid, folder, contrasts, notices),
                for_training={name: records.get(_for_training(name), ()) for name in generators},
                all_training=_participants(training) == _participants(real_training),
            )

        cohort = cohort_of(matched, work_dir, notices)
        described = {
            "haemodynamic response": settings.hrf_model,
            "drift": f"cosine, cut-off {settings.high_pass:.5f} Hz",
            "noise model": settings.noise_model,
            "regions of time courses": atlas.name if atlas is not None else "from the data",
            "seed of the evaluation": seed,
            "voxels compared": int(cohort.mask.sum()),
            "runs": {name: len(runs) for name, runs in cohort.runs.items() if runs},
            "samples of each run": {name: matched.n_samples(name) for name in cohort.generators},
        }
        references: dict[Hashable, Any] = {}
        with threadpool_limits(1):  # matrices this small are slower with several
            result = _compare(cohort, seed, notices, described, skipped, atlas, references, workers)
            further = [
                # The same real data: what was computed of them holds for every sample.
                _estimates(
                    cohort_of(samples, work_dir / f"sample-{n}", []),
                    seed,
                    atlas,
                    references,
                    workers,
                )
                for n, samples in enumerate(matched.further_samples(), start=2)
            ]
    return replace(result, estimates=_pooled([result.estimates, *further], cohort))


def _sides(
    reference: Sequence[Run], training: Sequence[Run], generators: Mapping[str, Sequence[Run]]
) -> dict[str, Sequence[Run]]:
    """Choose the runs of every source, and of generators for training participants."""
    participants = _participants(reference)
    sides: dict[str, Sequence[Run]] = {REAL: reference, TRAINING: training}
    for name, runs in generators.items():
        sides[name] = runs_to_compare(runs, participants)
        if not sides[name]:
            raise UsageError(
                f"the generator {name!r} has no run of the participants compared with "
                f"({', '.join(sorted(participants))}); generate runs for them first"
            )
    for name, runs in generators.items():
        trained = runs_for_training(runs, training, len(participants))
        if trained:
            sides[_for_training(name)] = trained
    return sides


def _pooled(drawn: Sequence[Mapping[str, Estimates]], cohort: Cohort) -> dict[str, Estimates]:
    """Average the estimates of the generators that wrote several samples of each run."""
    pooled = dict(drawn[0])
    for name in cohort.generators:
        own = [estimates[name] for estimates in drawn if name in estimates]
        if len(own) > 1:
            n_participants = min(len(cohort.participants[name]), len(cohort.real_rows(name)))
            pooled[name] = pool_samples(own, n_participants)
    return pooled


def _for_training(name: str) -> str:
    """Name the runs of a generator for training participants."""
    return f"{name}, training participants"


def _participants(runs: Sequence[Run]) -> set[str]:
    return {run.participant for run in runs}


def _summaries(
    sides: Mapping[str, Sequence[Run]],
    grid: Grid,
    *,
    work_dir: Path,
    each: Map,
    settings: GlmSettings,
    atlas: Atlas | None,
    progress: bool,
) -> tuple[dict[str, list[RunRecord]], Mapping[Path, str]]:
    """Summarise the runs of every source, leaving out those that cannot be used."""
    every = [run for runs in sides.values() for run in runs]
    summaries, skipped = summarise_usable_runs(
        every,
        grid,
        work_dir=work_dir,
        each=each,
        settings=settings,
        atlas=atlas,
        progress=progress,
    )
    remaining = iter(summaries)
    records = {}
    for name, runs in sides.items():
        usable = [next(remaining) for _ in runs]
        records[name] = [record for record in usable if record is not None]
        if runs and not records[name]:
            reasons = [skipped[run.bold] for run in runs]
            more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
            raise DataError(
                f"none of the {len(runs)} runs of {name!r} can be used: "
                + "; ".join(dict.fromkeys(reasons[:3]))
                + more
            )
    return records, skipped


def _compare(
    cohort: Cohort,
    seed: int,
    notices: Sequence[str],
    settings: Mapping[str, object],
    skipped: Mapping[Path, str],
    atlas: Atlas | None,
    references: dict[Hashable, Any],
    each: Map,
) -> Evaluation:
    """Compute every estimate from the runs' summaries."""
    conditions, generators = cohort.conditions, cohort.generators
    maps, by_type = cohort.group_maps()
    contrast_level = {level.suffix: level for level in conditions.levels()}.get("_contrast")
    measurements = measure(cohort, maps, by_type, atlas, seed, each)
    sources = (*generators, REAL)
    return Evaluation(
        estimates=_estimates_of(cohort, measurements, sources, seed, references, each),
        conditions=conditions,
        generators=generators,
        held_out=tuple(cohort.participants[REAL]),
        training=tuple(cohort.participants[TRAINING]),
        notices=tuple(notices),
        mask=nib.Nifti1Image(cohort.mask.astype(np.uint8), cohort.grid.affine),
        background=mean_image(cohort.runs[REAL], cohort.grid),
        maps=maps,
        trial_type_maps=by_type,
        contrast_maps={n: contrast_level.of(m[None])[0] for n, m in by_type.items()}
        if contrast_level
        else {},
        z_maps=_z_maps(cohort, ""),
        contrast_z_maps=_z_maps(cohort, "_contrast"),
        rdms={name: dissimilarity(m) for name, m in maps.items()},
        identification={n: identification_matrix(m, maps[REAL]) for n, m in maps.items()},
        time_courses=without_halves(measurements.courses),
        spectra={name: _spectra(runs) for name, runs in cohort.runs.items() if runs},
        nyquist=_nyquist(cohort.runs[REAL]),
        networks=measurements.networks,
        copying=measurements.audits,
        participant_maps=participant_matrices(
            cohort.supervoxel_tables, REAL, TRAINING, conditions.membership
        ),
        feature_maps=feature_maps(cohort, measurements.features, measurements.compact),
        records={name: tuple(runs) for name, runs in cohort.runs.items()},
        settings=settings,
        skipped=dict(skipped),
    )


def _estimates(
    cohort: Cohort, seed: int, atlas: Atlas | None, references: dict[Hashable, Any], each: Map
) -> dict[str, Estimates]:
    """Compute the estimates of a cohort's generators alone."""
    measurements = measure(cohort, *cohort.group_maps(), atlas, seed, each)
    return _estimates_of(cohort, measurements, cohort.generators, seed, references, each)


def _estimates_of(
    cohort: Cohort,
    measurements: Measurements,
    sources: Sequence[str],
    seed: int,
    references: dict[Hashable, Any],
    each: Map,
) -> dict[str, Estimates]:
    """Compare sources with the real data; one process keeps the references that it has computed."""
    comparison = Comparison(
        cohort, measurements, REAL, cohort.conditions.headline, seed, references=references
    )
    return compare_sources(comparison, sources, each)


def _z_maps(cohort: Cohort, suffix: str) -> dict[str, np.ndarray]:
    """Second-level z-maps of the real held-out participants and of every generator."""
    maps = {}
    for level in cohort.conditions.levels():
        if level.suffix != suffix or not level.names:
            continue
        for name in (REAL, *cohort.generators):
            maps[name] = np.array(
                [
                    z_map(level.voxels(cohort.tables[name], c), cohort.mask, cohort.grid.affine)
                    for c in range(len(level.names))
                ]
            )
    return maps


def _spectra(records: Sequence[RunRecord]) -> Spectra:
    return Spectra(
        spectrum=np.mean([r.spectrum for r in records], axis=0),
        autocorrelation=np.mean([r.autocorrelation for r in records], axis=0),
        fwhm=np.array([np.nanmean(r.fwhm) for r in records]),
        temporal_sd=np.array([r.temporal_sd for r in records]),
    )


def _nyquist(records: Sequence[RunRecord]) -> float | None:
    rates = {round(record.run.t_r, 4) for record in records}
    return 0.5 / rates.pop() if len(rates) == 1 else None
