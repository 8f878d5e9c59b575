"""A cohort on disk: simulate every participant, write the files, give them their name last."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fmrisynth.errors import FmrisynthError, InputOutputError, OutputError, UsageError
from fmrisynth.phantom import texts
from fmrisynth.phantom.anatomy import DIRECTIONS
from fmrisynth.phantom.config import PhantomConfig
from fmrisynth.phantom.files import link, write_image, write_table
from fmrisynth.phantom.noise import storage_step
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
)
from fmrisynth.runtime.workers import worker_pool

__all__ = ["simulate_cohort"]

_INTENSITY = 10_000.0  # of grey matter, as fMRIPrep's users are used to


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
    if nprocs < 1:
        raise UsageError(f"nprocs is {nprocs}; expected 1 or more.")
    out = Path(out).resolve()
    with _complete_or_absent(out) as folder:
        population = Population.build(config)
        labels = texts.participant_labels(config.n_participants)
        records: dict[int, dict[str, Any]] = {}
        results = _simulate_participants(population, labels, folder, nprocs)
        for index, record in tqdm(
            results, total=len(labels), desc="Participants", disable=not progress
        ):
            records[index] = record
        ordered = [records[i] for i in range(len(labels))]
        texts.write_raw_texts(folder, config, ordered)
        texts.write_derivative_texts(folder, config)
        write_population_truth(folder, population, ordered)
    return out


def _simulate_participants(
    population: Population, labels: list[str], folder: Path, nprocs: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (index, record) of each participant as it is finished."""
    if nprocs == 1 or len(labels) == 1:
        for index, label in enumerate(labels):
            yield index, _write_participant(population, index, label, folder)
        return
    with worker_pool(min(nprocs, len(labels))) as pool:
        futures = {
            pool.submit(_write_participant, population, index, label, folder): index
            for index, label in enumerate(labels)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise FmrisynthError(
                "a process of the phantom was killed, most likely for want of memory. Use fewer "
                f"than {nprocs} processes."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _complete_or_absent(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside `out` that takes its name when the block has succeeded."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            f"{out} exists and is not an empty folder; expected a new or empty one for the "
            "cohort. Choose another name or remove it."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise OutputError(f"{out} cannot be created: {error}. Choose a writable folder.") from error
    try:
        yield folder
        # mkdtemp makes private folders; the cohort gets the rights that any new folder has.
        probe = folder / "probe"
        probe.mkdir()
        folder.chmod(probe.stat().st_mode)
        probe.rmdir()
        os.replace(folder, out)
    except OSError as error:
        raise InputOutputError(f"writing the cohort {out} failed: {error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_participant(
    population: Population, index: int, label: str, folder: Path
) -> dict[str, Any]:
    """Simulate and write all runs of one participant; return what the tables say about it."""
    config = population.config
    participant = draw_participant(population, index)
    raw = folder / f"sub-{label}" / "func"
    derived = folder / texts.DERIVATIVES / f"sub-{label}" / "func"
    raw.mkdir(parents=True)
    derived.mkdir(parents=True)
    for direction in DIRECTIONS:
        session = build_session(population, participant, direction)
        write_participant_truth(folder, population, label, session)
        for task in config.tasks:
            rng = run_generator(config, index, task, direction)
            signal, events = simulate_run(population, participant, session, task, rng)
            stem = f"sub-{label}_task-{task}_dir-{direction}"
            _write_run(
                population=population,
                session=session,
                raw=raw,
                derived=derived,
                stem=stem,
                signal=signal,
            )
            write_table(raw / f"{stem}_events.tsv", events)
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
    slope = storage_step(config.tsnr)
    volumes = np.zeros((len(signal), int(np.prod(grid.shape))), np.int16)
    volumes[:, head.index] = np.clip(np.rint(signal / slope), 0, np.iinfo(np.int16).max)
    target = derived / f"{texts.derivative_stem(stem, config)}_desc-preproc_bold.nii.gz"
    write_image(
        target,
        volumes.reshape(-1, *grid.shape[::-1]),
        grid,
        description="simulated BOLD, fmrisynth.phantom",
        slope=slope * _INTENSITY,
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
