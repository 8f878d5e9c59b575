"""Simulate every participant of a cohort and write its files; the folder gets its name last."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fmrisynth.phantom import texts
from fmrisynth.phantom.anatomy import DIRECTIONS
from fmrisynth.phantom.assembly import complete_or_absent, run_in_order
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.files import link, write_image, write_table
from fmrisynth.phantom.motion import MOTION_COLUMNS, write_motion
from fmrisynth.phantom.noise import storage_step
from fmrisynth.phantom.realistic import (
    build_realistic_session,
    draw_realistic_participant,
    simulate_realistic_run,
)
from fmrisynth.phantom.scanner import scan_at_site
from fmrisynth.phantom.simulation import (
    Population,
    Session,
    build_session,
    draw_participant,
    run_generator,
    simulate_run,
)
from fmrisynth.phantom.truth import (
    participant_truth,
    write_participant_truth,
    write_population_truth,
    write_run_truth,
    write_sites_truth,
)

__all__ = ["MODELS", "simulate_cohort"]

_INTENSITY = 10_000.0  # of grey matter, as fMRIPrep's users are used to

# Realism: how a participant is drawn, imaged in one direction, and how one run is simulated.
MODELS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "gaussian": (draw_participant, build_session, simulate_run),
    "full": (draw_realistic_participant, build_realistic_session, simulate_realistic_run),
}


def simulate_cohort(
    out: Path | str, config: PhantomConfig | None = None, *, nprocs: int = 1, progress: bool = True
) -> Path:
    """Write a simulated cohort as raw BIDS with derivatives and truth.

    Parameters
    ----------
    out : Path or str
        Folder to create; it may exist if it is empty. It appears when the cohort is complete.
    config : PhantomConfig, optional
        What to simulate.
    nprocs : int
        Processes among which the participants are divided. The files do not depend on it. With
        more than one, a script that calls this needs the usual ``if __name__ == "__main__":``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        `out`; the derivatives lie in ``derivatives/fmriprep-phantom``, the truth in
        ``derivatives/truth``.

    Raises
    ------
    OutputError
        `out` is a file, a folder that holds something, or cannot be created.
    InputOutputError
        Writing failed half-way.
    """
    config = PhantomConfig() if config is None else config
    out = Path(out).resolve()
    with complete_or_absent(out) as folder:
        population = Population.build(config)
        labels = texts.participant_labels(config.n_participants)
        arguments = [(population, index, label, folder) for index, label in enumerate(labels)]
        ordered = run_in_order(_write_participant, arguments, nprocs=nprocs, progress=progress)
        texts.write_raw_texts(folder, config, ordered)
        texts.write_derivative_texts(folder, config)
        write_population_truth(folder, population, ordered)
    return out


def _write_participant(
    population: Population, index: int, label: str, folder: Path
) -> dict[str, Any]:
    """Simulate and write all runs of one participant; return what the tables say about it."""
    config = population.config
    draw, image, simulate = MODELS[config.realism]
    participant = scan_at_site(draw(population, index), config)
    raw = folder / f"sub-{label}" / "func"
    derived = folder / texts.DERIVATIVES / f"sub-{label}" / "func"
    raw.mkdir(parents=True)
    derived.mkdir(parents=True)
    write_sites_truth(folder, label, participant)
    for direction in DIRECTIONS:
        session = image(population, participant, direction)
        write_participant_truth(folder, population, label, session)
        for task, run in product(config.tasks, range(1, config.n_runs + 1)):
            rng = run_generator(config, index, task, direction, run)
            simulated = simulate(population, participant, session, task, rng)
            number = f"_run-{run}" if config.n_runs > 1 else ""
            stem = f"sub-{label}_task-{task}_dir-{direction}{number}"
            _write_run(
                population=population,
                session=session,
                raw=raw,
                derived=derived,
                stem=stem,
                signal=simulated.signal,
            )
            write_table(raw / f"{stem}_events.tsv", simulated.events)
            write_run_truth(folder, label, stem, simulated.courses)
            if simulated.courses is not None:
                motion = simulated.courses[list(MOTION_COLUMNS)].to_numpy()
                write_motion(derived, stem, motion, "simulated, not estimated")
            texts.write_run_sidecars(
                raw, derived, stem, task=task, direction=direction, config=config
            )
    return {
        "participant_id": f"sub-{label}",
        "age": participant.age,
        "sex": participant.sex,
        **participant_truth(participant),
    }


def _write_run(
    *,
    population: Population,
    session: Session,
    raw: Path,
    derived: Path,
    stem: str,
    signal: np.ndarray,
) -> None:
    config, grid, head = population.config, population.grid, session.head
    slope = storage_step(config)
    volumes = np.zeros((len(signal), int(np.prod(grid.shape))), np.int16)
    volumes[:, head.index] = np.clip(np.rint(signal / slope), 0, np.iinfo(np.int16).max)
    target = derived / f"{texts.derivative_stem(stem, config)}_desc-preproc_bold.nii.gz"
    write_image(
        target,
        volumes.reshape(-1, *grid.shape[::-1]),
        grid,
        description="simulated BOLD, fmrisynth.phantom",
        slope=slope * _INTENSITY * config.intensity,
        t_r=config.t_r,
    )
    link(target, raw / f"{stem}_bold.nii.gz")
    mask = np.zeros(int(np.prod(grid.shape)), np.uint8)
    mask[head.index] = head.mask
    write_image(
        derived / f"{texts.derivative_stem(stem, config)}_desc-brain_mask.nii.gz",
        mask.reshape(grid.shape[::-1]),
        grid,
        description="brain mask, fmrisynth.phantom",
    )
