"""Synthetic runs in number: read, generate, write; the next is read while the last is written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from tqdm import tqdm

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import is_finished, write_synthetic_run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import Bold, load_bold
from fmrisynth.config.codec import to_json
from fmrisynth.config.model import SamplingConfig
from fmrisynth.errors import DataError, ModelError
from fmrisynth.model.model import Model
from fmrisynth.synthesis.synthesiser import Synthesiser, person_seed, run_seed

__all__ = ["Production", "write_synthetic_runs"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Production:
    """What is to be made.

    Attributes
    ----------
    out : pathlib.Path
        Output directory.
    sampling : SamplingConfig
        How to draw.
    n_samples : int
        Copies of each run.
    seed : int
        Of all noise; each run derives its own from it.
    sources : mapping
        Datasets that were read, by their names in DatasetLinks.
    """

    out: Path
    sampling: SamplingConfig
    n_samples: int
    seed: int
    sources: Mapping[str, Path]


@dataclass(frozen=True)
class _Job:
    run: Run
    sample: int
    provenance: dict[str, Any]


def write_synthetic_runs(
    production: Production, model: Model, runs: Sequence[Run], fabric: Fabric
) -> dict[Path, str]:
    """Write the synthetic runs that are not there yet, each process its share of them.

    Parameters
    ----------
    production : Production
        What is to be made.
    model : Model
        The trained parts.
    runs : sequence of Run
        The runs to follow.
    fabric : lightning_fabric.Fabric
        Device, precision, processes.

    Returns
    -------
    dict
        Why a run could not be used, by its file.
    """
    jobs = _jobs(production, model, runs)
    done = len(runs) * production.n_samples - len(jobs)
    if done:
        log.info("%d synthetic runs are there already and are left as they are", done)
    jobs = jobs[fabric.global_rank :: fabric.world_size]

    def autocast() -> AbstractContextManager[object]:
        return fabric.autocast()

    synthesiser = Synthesiser(model.to(fabric.device), production.sampling, autocast)
    failed: dict[Path, str] = {}
    # one thread reads ahead and one writes behind: decompression and deflate release the GIL
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        pending: list[Future[Any]] = []
        ahead = reader.submit(load_bold, jobs[0].run) if jobs else None
        for index, job in enumerate(tqdm(jobs, desc="Synthesis", unit="run")):
            assert ahead is not None
            current = ahead
            if index + 1 < len(jobs):
                ahead = reader.submit(load_bold, jobs[index + 1].run)
            try:
                made = _make(synthesiser, job, current.result(), production.seed)
            except (DataError, ModelError) as error:
                log.warning("not synthesised: %s: %s", job.run.label, error)
                failed[job.run.bold] = str(error)
                continue
            if pending:  # at most one run is written while the next is made
                pending.pop().result()
            pending.append(writer.submit(_write, production, job, *made))
        for future in pending:
            future.result()
    return failed


def _jobs(production: Production, model: Model, runs: Sequence[Run]) -> list[_Job]:
    """List the runs and samples that are not finished yet."""
    jobs = []
    for run in runs:
        for sample in range(1, production.n_samples + 1):
            provenance = {
                "ModelHash": model.info.digest,
                "ParticipantRole": model.info.split.role(run.participant),
                "RandomSeed": production.seed,
                "Sample": sample,
                "Sampling": to_json(production.sampling),
            }
            finished = is_finished(
                production.out, run, sample=sample, n_samples=production.n_samples,
                provenance=provenance,
            )  # fmt: skip
            if not finished:
                jobs.append(_Job(run, sample, provenance))
    return jobs


def _make(
    synthesiser: Synthesiser, job: _Job, bold: Bold, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """One synthetic run and its mask."""
    run = job.run
    events = read_events(run.events, duration=run.duration)
    data, carrier = synthesiser.synthesise(
        run,
        bold,
        events,
        run_seed(seed, run.label, job.sample),
        person_seed(seed, run.participant),
    )
    return data, carrier.mask


def _write(production: Production, job: _Job, data: np.ndarray, mask: np.ndarray) -> None:
    """Write one run, in the writer's thread."""
    write_synthetic_run(
        production.out,
        job.run,
        data,
        mask,
        sample=job.sample,
        n_samples=production.n_samples,
        provenance=job.provenance,
        sources=production.sources,
    )
