"""The whole comparison: real held-out participants, real training ones, generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.errors import DataError, UsageError
from fmrisynth.evaluation.activation import compare_maps, compare_split_halves
from fmrisynth.evaluation.blocks import block_samples, common_blocks
from fmrisynth.evaluation.conditions import Conditions, find_conditions
from fmrisynth.evaluation.copying import audit_copying, copy_figures
from fmrisynth.evaluation.decoding import Samples, compare_decoding
from fmrisynth.evaluation.glm import GlmSettings
from fmrisynth.evaluation.identification import identification_matrix
from fmrisynth.evaluation.individuals import compare_individuals, participant_matrices
from fmrisynth.evaluation.maps import MapTable, build_tables, common_mask, merge
from fmrisynth.evaluation.networks import Networks, compare_networks, networks_of, parcels
from fmrisynth.evaluation.overlap import compare_overlap
from fmrisynth.evaluation.records import Grid, RunRecord, coarse_blocks, summarise_runs
from fmrisynth.evaluation.resampling import Figure
from fmrisynth.evaluation.result import REAL, TRAINING, Evaluation, Spectra
from fmrisynth.evaluation.rsa import dissimilarity
from fmrisynth.evaluation.sources import ByPerson, assign_roles, match_runs
from fmrisynth.evaluation.timecourses import TimeCourse, mean_image, region_of, time_course
from fmrisynth.evaluation.timeseries import compare_time_series, real_time_series
from fmrisynth.evaluation.timing import compare_timing
from fmrisynth.evaluation.variance import variance_figures, variance_shares

__all__ = ["REAL", "TRAINING", "Evaluation", "evaluate"]


def evaluate(
    real_held_out: Sequence[Run],
    real_training: Sequence[Run],
    generators: Mapping[str, Sequence[Run]],
    *,
    work_dir: Path,
    nprocs: int = 1,
    seed: int = 0,
    settings: GlmSettings | None = None,
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
        Name → synthetic runs; those of held-out participants are compared.
        The first generator is the one under test.
    work_dir : Path
        Directory for the cache of first-level results.
    nprocs : int
        Number of processes.
    seed : int
        Seed of every draw (bootstrap, shuffles, training participants).
    settings : GlmSettings or None
        Settings of the first-level model.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        When a participant is both held out and trained on, or there is
        nothing to compare.
    DataError
        When a run cannot be read; the message names the file.
    """
    rng = np.random.default_rng(seed)
    settings = settings or GlmSettings()
    notices: list[str] = []
    reference, training = assign_roles(real_held_out, real_training, generators, rng, notices)
    people = {run.participant for run in reference}
    chosen = {
        name: [run for run in runs if run.participant in people]
        for name, runs in generators.items()
    }
    for name, runs in chosen.items():
        if not runs:
            raise UsageError(
                f"the generator {name!r} has no run of the participants compared with "
                f"({', '.join(sorted(people))}); generate runs for them first"
            )
    grid = Grid(reference[0].affine, reference[0].shape)
    every = [*reference, *training, *(run for runs in chosen.values() for run in runs)]
    records = summarise_runs(
        every, grid, work_dir=work_dir, nprocs=nprocs, settings=settings, progress=progress
    )
    gathered = match_runs(records, reference, training, chosen)
    cohort = _cohort(gathered, grid, work_dir, notices)
    described = {
        "haemodynamic response": settings.hrf_model,
        "drift": f"cosine, cut-off {settings.high_pass:.5f} Hz",
        "noise model": settings.noise_model,
        "seed of the evaluation": seed,
        "voxels compared": int(cohort.mask.sum()),
        "runs": {name: len(runs) for name, runs in cohort.runs.items() if runs},
    }
    return _compare(cohort, rng, notices, described)


@dataclass(frozen=True)
class _Cohort:
    """All sources on one grid: their runs, participants' maps and coarse series."""

    people: Mapping[str, ByPerson]
    runs: Mapping[str, Sequence[RunRecord]]
    grid: Grid
    mask: np.ndarray
    conditions: Conditions
    tables: Mapping[str, MapTable]
    block_tables: Mapping[str, MapTable]
    keys: np.ndarray

    @property
    def generators(self) -> tuple[str, ...]:
        return tuple(name for name in self.people if name not in (REAL, TRAINING))

    @property
    def training(self) -> MapTable | None:
        return self.tables[TRAINING] if self.people[TRAINING] else None

    def samples(self, runs: Sequence[RunRecord]) -> Samples:
        """Effect maps of single runs on the blocks."""
        return block_samples(runs, self.conditions.trial_types, self.keys, self.grid)

    def real_rows(self, name: str) -> list[int]:
        """Rows of a generator's participants among the real ones."""
        return [self.tables[REAL].participants.index(p) for p in self.tables[name].participants]

    def real_runs(self, name: str) -> list[RunRecord]:
        """Real runs of the participants that a generator has runs of."""
        return [r for r in self.runs[REAL] if r.run.participant in self.people[name]]


def _cohort(
    people: Mapping[str, ByPerson], grid: Grid, work_dir: Path, notices: list[str]
) -> _Cohort:
    runs = {name: [r for rs in source.values() for r in rs] for name, source in people.items()}
    every = [record for records in runs.values() for record in records]
    mask, note = common_mask(every)
    if not mask.any():
        raise DataError(
            "the brain masks of the runs have no voxel in common; runs to be compared must be in "
            "one space (use --space to choose it)"
        )
    if note:
        notices.append(note[0].upper() + note[1:] + ".")
    conditions = find_conditions(runs[REAL])
    pairs = conditions.trial_types
    _, average = coarse_blocks(mask, grid.affine)
    return _Cohort(
        people=people,
        runs=runs,
        grid=grid,
        mask=mask,
        conditions=conditions,
        tables=build_tables(people, pairs, mask, work_dir / "maps.npy"),
        block_tables=build_tables(people, pairs, mask, work_dir / "blocks.npy", average),
        keys=common_blocks(every),
    )


def _compare(
    cohort: _Cohort, rng: np.random.Generator, notices: list[str], settings: Mapping[str, object]
) -> Evaluation:
    """Compute every figure from the runs' summaries."""
    conditions, generators = cohort.conditions, cohort.generators
    shown = {name: table for name, table in cohort.tables.items() if table.participants}
    by_type = {name: table.group_maps() for name, table in shown.items()}
    maps = {name: merge(m[None], conditions.membership)[0] for name, m in by_type.items()}
    courses = _time_courses(cohort, maps, by_type)
    networks = _networks(cohort)
    shares = {n: variance_shares(runs, cohort.mask) for n, runs in cohort.runs.items() if runs}
    audits = {
        name: audit_copying(
            cohort.runs[name], cohort.runs[REAL], cohort.runs[TRAINING], cohort.keys, rng
        )
        for name in generators
        if cohort.training is not None
    }
    figures = {name: _generator_figures(cohort, name, rng) for name in generators}
    for name in generators:
        figures[name] |= compare_timing(courses, name, REAL, TRAINING, rng)
        if networks:
            figures[name] |= compare_networks(
                networks[name], networks[REAL], networks.get(TRAINING), rng
            )
        figures[name] |= variance_figures(shares[name], shares[REAL])
        figures[name] |= copy_figures(audits[name], rng) if name in audits else {}
    figures[REAL] = _real_figures(cohort, rng) | variance_figures(
        shares[REAL], shares.get(TRAINING, {})
    )
    return Evaluation(
        figures=figures,
        conditions=conditions,
        generators=generators,
        held_out=tuple(cohort.people[REAL]),
        training=tuple(cohort.people[TRAINING]),
        notices=tuple(notices),
        mask=nib.Nifti1Image(cohort.mask.astype(np.uint8), cohort.grid.affine),
        background=mean_image(cohort.runs[REAL], cohort.grid),
        maps=maps,
        trial_type_maps=by_type,
        rdms={name: dissimilarity(m) for name, m in maps.items()},
        identification={n: identification_matrix(m, maps[REAL]) for n, m in maps.items()},
        time_courses=courses,
        spectra={name: _spectra(runs) for name, runs in cohort.runs.items() if runs},
        nyquist=_nyquist(cohort.runs[REAL]),
        networks=networks,
        copying=audits,
        participant_maps=participant_matrices(
            cohort.block_tables, REAL, TRAINING, conditions.membership
        ),
        records={name: tuple(runs) for name, runs in cohort.runs.items()},
        settings=settings,
    )


def _generator_figures(cohort: _Cohort, name: str, rng: np.random.Generator) -> dict[str, Figure]:
    """Figures of a generator's maps, individuals, time series and use."""
    made, real, rows = cohort.tables[name], cohort.tables[REAL], cohort.real_rows(name)
    trained = cohort.tables[TRAINING]
    figures: dict[str, Figure] = {}
    for suffix, names, membership in cohort.conditions.levels():
        compared = compare_maps(
            merge(made.whole(), membership),
            merge(real.whole()[rows], membership),
            merge(trained.whole(), membership),
            names,
            rng,
        )
        figures |= {_suffixed(metric, suffix): figure for metric, figure in compared.items()}
    figures |= compare_overlap(made, real, cohort.training, cohort.conditions.membership, rng)
    figures |= compare_time_series(
        cohort.runs[name], cohort.real_runs(name), cohort.runs[TRAINING], rng
    )
    blocks = cohort.block_tables
    figures |= compare_individuals(
        blocks[name],
        blocks[REAL],
        blocks[TRAINING] if cohort.training is not None else None,
        cohort.conditions.membership,
        rng,
    )
    if cohort.training is not None:
        figures |= compare_decoding(
            cohort.samples(cohort.runs[name]),
            cohort.samples(cohort.real_runs(name)),
            cohort.samples(cohort.runs[TRAINING]),
            rng,
        )
    return figures


def _real_figures(cohort: _Cohort, rng: np.random.Generator) -> dict[str, Figure]:
    """Figures of real data as its own generator."""
    figures: dict[str, Figure] = {}
    for suffix, names, membership in cohort.conditions.levels():
        compared = compare_split_halves(
            cohort.tables[REAL], cohort.training, membership, names, rng
        )
        figures |= {_suffixed(metric, suffix): figure for metric, figure in compared.items()}
    return figures | real_time_series(cohort.runs[REAL], cohort.runs[TRAINING], rng)


def _networks(cohort: _Cohort) -> dict[str, Networks]:
    """Measure connectivity of every source on parcels that real data define."""
    if len(cohort.keys) < 8:  # fewer blocks than that make no parcels worth the name
        return {}
    labels = parcels(cohort.runs[TRAINING] or cohort.runs[REAL], cohort.keys)
    return {
        name: networks_of(runs, cohort.keys, labels) for name, runs in cohort.runs.items() if runs
    }


def _time_courses(
    cohort: _Cohort, maps: Mapping[str, np.ndarray], by_type: Mapping[str, np.ndarray]
) -> tuple[TimeCourse, ...]:
    """Measure each condition's response where real training data have it (else the real ones)."""
    courses = []
    conditions = cohort.conditions
    sources = {REAL: cohort.runs[REAL]} | dict(cohort.runs)
    for c, name in enumerate(conditions.names):
        chooser = TRAINING if TRAINING in maps and np.isfinite(maps[TRAINING][c, 0]) else REAL
        effects = {
            pair: np.nan_to_num(by_type[chooser][k])
            for k, pair in enumerate(conditions.trial_types)
        }
        region = region_of(maps[chooser][c], effects, cohort.mask, cohort.grid)
        course = time_course(name, conditions.members(c), region, sources)
        if course is not None:
            courses.append(course)
    return tuple(courses)


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


def _suffixed(metric: str, suffix: str) -> str:
    """``corr`` → ``corr_trial_type``, ``corr[x]`` → ``corr_trial_type[x]``."""
    base, bracket, rest = metric.partition("[")
    return f"{base}{suffix}{bracket}{rest}"
