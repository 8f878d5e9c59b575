"""Compare generators with real held-out participants, with real training ones as reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.errors import DataError, UsageError
from fmrisynth.evaluation.cohort.cohort import Cohort, build_cohort, most_common_grid
from fmrisynth.evaluation.cohort.contrasts import Contrast
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.cohort.sources import (
    MOST_SAMPLES,
    assign_roles,
    match_runs,
    runs_for_training,
    runs_to_compare,
)
from fmrisynth.evaluation.measures.feature_maps import feature_differences, voxel_parcels
from fmrisynth.evaluation.measures.identification import identification_matrix
from fmrisynth.evaluation.measures.individuals import participant_matrices
from fmrisynth.evaluation.measures.rsa import dissimilarity
from fmrisynth.evaluation.measures.second_level import z_map
from fmrisynth.evaluation.measures.timecourses import mean_image
from fmrisynth.evaluation.metrics.compare import compare_source
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.measurements import Measurements, measure, without_halves
from fmrisynth.evaluation.result import Evaluation, Spectra
from fmrisynth.evaluation.runs.atlas import Atlas
from fmrisynth.evaluation.runs.glm import GlmSettings
from fmrisynth.evaluation.runs.grids import Grid
from fmrisynth.evaluation.runs.records import RunRecord, summarise_usable_runs

__all__ = ["evaluate"]

_MOST_LISTED = 10
"""Skipped runs that the notices list; `Evaluation.skipped` holds all."""


def evaluate(
    real_held_out: Sequence[Run],
    real_training: Sequence[Run],
    generators: Mapping[str, Sequence[Run]],
    *,
    work_dir: str | Path,
    nprocs: int = 1,
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
        of new participants, who stand beside no real one, with all of them. The first
        generator is the one under test.
    work_dir : str or Path
        Directory for the cache of first-level results.
    nprocs : int
        Number of processes.
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
    participants = {run.participant for run in reference}
    chosen = {name: runs_to_compare(runs, participants) for name, runs in generators.items()}
    for name, runs in chosen.items():
        if not runs:
            raise UsageError(
                f"the generator {name!r} has no run of the participants compared with "
                f"({', '.join(sorted(participants))}); generate runs for them first"
            )
    grid = most_common_grid(reference)
    trained = {
        name: runs_for_training(runs, training, len(participants))
        for name, runs in generators.items()
    }
    sides = {REAL: reference, TRAINING: training, **chosen}
    sides |= {_for_training(name): runs for name, runs in trained.items() if runs}
    records, skipped = _summaries(
        sides,
        grid,
        work_dir=work_dir,
        nprocs=nprocs,
        settings=settings,
        atlas=atlas,
        progress=progress,
    )
    notices += _notices(skipped, chosen, records)
    notices += _dependent_trial_types(records[REAL])
    matched = match_runs(
        records[REAL], records[TRAINING], {name: records[name] for name in generators}
    )
    cohort = replace(
        build_cohort(matched, grid, work_dir, contrasts, notices),
        for_training={name: records.get(_for_training(name), ()) for name in generators},
        all_training=_participants(training) == _participants(real_training),
    )
    described = {
        "haemodynamic response": settings.hrf_model,
        "drift": f"cosine, cut-off {settings.high_pass:.5f} Hz",
        "noise model": settings.noise_model,
        "regions of time courses": atlas.name if atlas is not None else "from the data",
        "seed of the evaluation": seed,
        "voxels compared": int(cohort.mask.sum()),
        "runs": {name: len(runs) for name, runs in cohort.runs.items() if runs},
    }
    return _compare(cohort, seed, notices, described, skipped, atlas)


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
    nprocs: int,
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
        nprocs=nprocs,
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


def _notices(
    skipped: Mapping[Path, str],
    chosen: Mapping[str, Sequence[Run]],
    records: Mapping[str, Sequence[RunRecord]],
) -> list[str]:
    """Say which runs are missing, and what is done with several samples of a run."""
    notices = []
    if skipped:
        listed = [f"{path.name}: {why}" for path, why in skipped.items()][:_MOST_LISTED]
        more = f"; and {len(skipped) - len(listed)} more" if len(skipped) > len(listed) else ""
        notices.append(
            f"{len(skipped)} run{'s' if len(skipped) > 1 else ''} could not be used and "
            f"{'are' if len(skipped) > 1 else 'is'} left out of every estimate: "
            f"{'; '.join(listed)}{more}."
        )
    single = []
    for name in chosen:
        groups = match_runs(records[REAL], (), {name: records[name]}).samples[name]
        if groups:
            notices.append(
                f"{name} wrote several samples of each run. The first of each is compared with "
                f"the real run; up to {MOST_SAMPLES} are compared with each other."
            )
        else:
            single.append(name)
    if single:
        notices.append(
            f"Each run of {', '.join(single)} is a single draw, of one training. Intervals "
            "are over participants and hold neither source of chance: see how much figures move "
            "with --n-samples, and beside trainings with other seeds (--compare)."
        )
    return notices


def _dependent_trial_types(records: Sequence[RunRecord | None]) -> list[str]:
    """Name the trial types whose effects cannot be told from those of others."""
    counts = Counter(
        f"{record.run.task}/{name}" for record in records if record for name in record.dependent
    )
    if not counts:
        return []
    listed = ", ".join(f"{name} (in {count} runs)" for name, count in sorted(counts.items()))
    return [
        f"Other trial types add up to these, so that they have no effect of their own and are left "
        f"out of every estimate: {listed}."
    ]


def _compare(
    cohort: Cohort,
    seed: int,
    notices: Sequence[str],
    settings: Mapping[str, object],
    skipped: Mapping[Path, str],
    atlas: Atlas | None,
) -> Evaluation:
    """Compute every estimate from the runs' summaries."""
    conditions, generators = cohort.conditions, cohort.generators
    shown = {name: table for name, table in cohort.tables.items() if table.participants}
    by_type = {name: table.group_maps() for name, table in shown.items()}
    levels = {level.suffix: level for level in conditions.levels()}
    maps = {name: levels[""].of(m[None])[0] for name, m in by_type.items()}
    contrast_level = levels.get("_contrast")
    measurements = measure(cohort, maps, by_type, atlas, seed)
    comparison = Comparison(cohort, measurements, REAL, conditions.headline, seed)
    estimates = {
        source: compare_source(replace(comparison, source=source)) for source in (*generators, REAL)
    }
    return Evaluation(
        estimates=estimates,
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
        feature_maps=_feature_maps(cohort, measurements),
        records={name: tuple(runs) for name, runs in cohort.runs.items()},
        settings=settings,
        skipped=dict(skipped),
    )


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


def _feature_maps(cohort: Cohort, measurements: Measurements) -> dict[str, dict[str, np.ndarray]]:
    """Map in what the runs of each source differ from the real held-out ones."""
    tables, labels = measurements.features, measurements.compact
    if REAL not in tables:
        return {}
    parcels = voxel_parcels(labels, cohort.keys, cohort.mask, cohort.grid)
    maps = {}
    for name in (*cohort.generators, TRAINING):
        if name in tables:
            real = tables[REAL]
            if name != TRAINING and not cohort.unpaired(name):
                real = real.keep(set(tables[name].participants))
            differences = feature_differences(real, tables[name], int(labels.max()) + 1)
            maps[name] = {
                kind: np.where(parcels >= 0, values[parcels], np.nan)
                for kind, values in differences.items()
            }
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
