"""All figures of one source: a generator, or real data as its own generator."""

from __future__ import annotations

import math

import numpy as np

from fmrisynth.evaluation.cohort.cohort import Cohort
from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.measures.resampling import Figure
from fmrisynth.evaluation.metrics.activation import compare_maps, compare_split_halves
from fmrisynth.evaluation.metrics.connectivity import compare_networks, real_networks
from fmrisynth.evaluation.metrics.copying import CopyAudit, audit_copying, copy_figures
from fmrisynth.evaluation.metrics.decoding import compare_decoding
from fmrisynth.evaluation.metrics.diversity import compare_diversity
from fmrisynth.evaluation.metrics.individuals import compare_individuals, real_individuals
from fmrisynth.evaluation.metrics.measurements import HALVES, Measurements
from fmrisynth.evaluation.metrics.overlap import compare_overlap, compare_overlap_halves
from fmrisynth.evaluation.metrics.timeseries import compare_time_series, real_time_series
from fmrisynth.evaluation.metrics.timing import compare_timing
from fmrisynth.evaluation.metrics.variance import run_vectors, variance_figures

__all__ = ["generator_figures", "real_figures"]

Figures = dict[str, Figure]


def generator_figures(
    cohort: Cohort,
    measured: Measurements,
    name: str,
    audit: CopyAudit | None,
    rng: np.random.Generator,
) -> Figures:
    """Compute every figure of a generator.

    Parameters
    ----------
    cohort : Cohort
        All sources.
    measured : Measurements
        Of all sources.
    name : str
        The generator.
    audit : CopyAudit or None
        Its copying audit, where there are training participants.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        Metric → Figure, in the order of the table.
    """
    made, real, rows = cohort.tables[name], cohort.tables[REAL], cohort.real_rows(name)
    runs, real_runs, training_runs = (
        cohort.runs[name],
        cohort.real_runs(name),
        cohort.runs[TRAINING],
    )
    trained = cohort.tables[TRAINING]
    figures: Figures = {}
    for level in cohort.conditions.levels():
        compared = compare_maps(
            level.of(made.whole()),
            level.of(real.whole()[rows]),
            level.of(trained.whole()),
            level.names,
            rng,
        )
        if level.suffix != "_trial_type":  # a Dice for each of many small conditions says little
            compared |= compare_overlap(made, real, cohort.training, level, rng)
        figures |= _named(compared, level)
    figures |= compare_time_series(runs, real_runs, training_runs, rng)
    figures |= compare_timing(measured.courses, name, REAL, TRAINING, rng)
    figures |= compare_individuals(
        cohort.block_tables[name],
        cohort.block_tables[REAL],
        cohort.training_blocks,
        cohort.conditions.membership,
        rng,
    )
    figures |= compare_diversity(
        cohort.samples[name], runs, real_runs, training_runs, cohort.keys, rng
    )
    if measured.networks:
        figures |= compare_networks(
            measured.networks[name],
            measured.networks[REAL],
            measured.networks.get(TRAINING),
            rng,
        )
    figures |= variance_figures(
        measured.shares[name], measured.shares[REAL], run_vectors(runs, cohort.mask), rng
    )
    if audit is not None:
        figures |= copy_figures(audit, rng)
    if cohort.training is not None:
        figures |= compare_decoding(
            cohort.map_samples(runs),
            cohort.map_samples(real_runs),
            cohort.map_samples(training_runs),
            rng,
        )
    return figures


def real_figures(cohort: Cohort, measured: Measurements, rng: np.random.Generator) -> Figures:
    """Compute every figure of real data as its own generator.

    Maps, time series, courses and networks of one half of everybody's runs
    are compared with the other half; for copying and decoding, held-out people
    take the generator's place for each other.

    Parameters
    ----------
    cohort, measured, rng
        As for `generator_figures`.

    Returns
    -------
    dict
        Metric → Figure.
    """
    real, runs, training_runs = cohort.tables[REAL], cohort.runs[REAL], cohort.runs[TRAINING]
    figures: Figures = {}
    for level in cohort.conditions.levels():
        compared = compare_split_halves(real, cohort.training, level, rng)
        if level.suffix != "_trial_type":
            compared |= compare_overlap_halves(real, cohort.training, level, rng)
        figures |= _named(compared, level)
    figures |= real_time_series(runs, training_runs, rng)
    figures |= compare_timing(measured.courses, HALVES[0], HALVES[1], TRAINING, rng)
    figures |= real_individuals(
        cohort.block_tables[REAL], cohort.training_blocks, cohort.conditions.membership, rng
    )
    figures |= compare_diversity({}, runs, runs, training_runs, cohort.keys, rng)
    if measured.networks:
        figures |= real_networks(
            measured.half_networks,
            measured.networks[REAL],
            measured.networks.get(TRAINING),
            rng,
        )
    figures |= variance_figures(
        measured.shares[REAL],
        measured.shares.get(TRAINING, {}),
        run_vectors(runs, cohort.mask),
        rng,
    )
    if cohort.training is not None:
        if len(cohort.people[REAL]) > 1:
            audit = audit_copying(runs, runs, training_runs, cohort.keys, rng, own_people=True)
            figures |= copy_figures(audit, rng)
        held_out = cohort.map_samples(runs)
        figures |= compare_decoding(held_out, held_out, cohort.map_samples(training_runs), rng)
    return figures


def _named(figures: Figures, level: Level) -> Figures:
    """Name figures after their level; those that need more contrasts than there are go."""
    return {
        level.metric(name): figure
        for name, figure in figures.items()
        if level.suffix != "_contrast"
        or (math.isfinite(figure.value) and (name != "rsa_pairs" or figure.value >= 3))
    }
