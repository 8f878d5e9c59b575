"""Synthesise many runs; reading, sampling and writing overlap in three threads."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.derivatives import is_finished
from fmrisynth.bids.events import read_events
from fmrisynth.bids.synthetic_sidecars import CARRIER_KEY, NEW, NOISE_LEVEL_KEY, OWN_RUN, ROLE_KEY
from fmrisynth.config.codec import to_json
from fmrisynth.config.model import SamplingConfig
from fmrisynth.errors import DataError, ModelError
from fmrisynth.model.individuals import IndividualInference
from fmrisynth.model.model import Model
from fmrisynth.preprocess.carrier import Carrier, removed_basis
from fmrisynth.preprocess.splits import Split
from fmrisynth.runtime.progress import track
from fmrisynth.synthesis.carriers import choose_carrier, nobodys_carrier, noise_sd_of
from fmrisynth.synthesis.companions import Companions, evoked_by_model
from fmrisynth.synthesis.individuals import choose_individuals, deviation_of, noise_of
from fmrisynth.synthesis.motion import motion_of
from fmrisynth.synthesis.response_maps import response_maps
from fmrisynth.synthesis.run_statistics import RunStatistics, SiblingReader
from fmrisynth.synthesis.synthesiser import Synthesiser, participant_seed, run_seed

__all__ = ["SynthesisPlan", "role_of", "write_synthetic_runs"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SynthesisPlan:
    """Describe which synthetic runs are to be written, and how.

    Attributes
    ----------
    out : pathlib.Path
        Output directory.
    sampling : SamplingConfig
        Sampler, steps, guidance.
    n_samples : int
        Synthetic runs for each real one.
    seed : int
        Seed of all noise; each run derives its own from it.
    sources : mapping
        Datasets that were read, by their names in DatasetLinks.
    siblings : sequence of Run
        All runs of the participants: a synthetic run is like the other runs of its participant.
    individuals : {"own", "drawn", "group"} or None
        Whose responses the runs have; None for their participant's own where the model can.
    carrier : {"own", "drawn", "group-mean"} or None
        Whose mean image, noise level, drift and mask the runs have; None for their participant's
        own, and drawn ones of new participants.
    work_dir : pathlib.Path or None
        Folder of the cache of what runs say of their participants; None for no cache.
    companions : Companions
        What is added to the runs, and written beside them.
    """

    out: Path
    sampling: SamplingConfig
    n_samples: int
    seed: int
    sources: Mapping[str, Path]
    siblings: Sequence[Run]
    individuals: str | None = None
    carrier: str | None = None
    work_dir: Path | None = None
    companions: Companions = field(default_factory=Companions)


@dataclass(frozen=True)
class _Job:
    run: Run
    sample: int
    individuals: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class _Siblings:
    """What has been read of a participant's runs, by image."""

    carriers: Mapping[Path, Carrier]
    statistics: Mapping[Path, RunStatistics]


@dataclass(frozen=True)
class _Synthetic:
    """A synthetic run: volumes, mask, responses by trial type where wanted, head motion."""

    data: np.ndarray
    mask: np.ndarray
    maps: Mapping[str, np.ndarray]
    motion: np.ndarray


def write_synthetic_runs(
    plan: SynthesisPlan, model: Model, runs: Sequence[Run], fabric: Fabric
) -> dict[Path, str]:
    """Write the synthetic runs that are not finished yet; each process writes its share.

    Parameters
    ----------
    plan : SynthesisPlan
        Number, seed, sampling, output directory.
    model : Model
        The trained parts.
    runs : sequence of Run
        Real runs, whose events and carriers the synthetic ones have; or runs of new
        participants, of which no image is read.
    fabric : lightning_fabric.Fabric
        Device, precision, processes.

    Returns
    -------
    dict
        Reasons why runs could not be used, by file.
    """
    new = any(run.new for run in runs)
    chosen = choose_individuals(plan.individuals, model, new=new)
    plan = replace(plan, carrier=choose_carrier(plan.carrier, model, new=new))
    if chosen == "group" and plan.individuals is None:
        log.info("the model knows no individual differences: all have the response of the group")
    # nothing is read of participants of whom nothing is to be in the runs
    reads = plan.carrier == "own" or chosen == "own"
    jobs = _jobs(plan, model, runs, chosen)
    done = len(runs) * plan.n_samples - len(jobs)
    if done:
        log.info("%d synthetic runs are there already and are left as they are", done)
    fabric.barrier()  # before any process writes: all must share out the same list
    jobs = jobs[fabric.global_rank :: fabric.world_size]

    def autocast() -> AbstractContextManager[object]:
        return fabric.autocast()

    synthesiser = Synthesiser(model.to(fabric.device), plan.sampling, autocast)
    inference = model.response.inference() if jobs and chosen != "group" else None
    source = SiblingReader(model, inference if chosen == "own" else None, plan.work_dir)
    failed: dict[Path, str] = {}
    groups = _by_participant(jobs)
    siblings = {p: [r for r in plan.siblings if reads and r.participant == p] for p in groups}
    # one thread reads ahead and one writes behind: decompression and deflate release the GIL
    with (
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
        track(total=len(jobs), desc="Synthesis", unit="run") as bar,
    ):
        reading = {p: _read_ahead(reader, source, siblings[p]) for p in list(groups)[:1]}
        pending: list[Future[Any]] = []
        for number, (participant, mine) in enumerate(groups.items()):
            for following in list(groups)[number + 1 : number + 2]:
                reading[following] = _read_ahead(reader, source, siblings[following])
            known = _collect(reading.pop(participant), failed)
            for job in mine:
                bar.update()
                if reads and job.run.bold not in known.carriers:
                    continue
                try:
                    synthetic = _synthesise(synthesiser, inference, job, known, plan)
                except (DataError, ModelError) as error:
                    log.warning("not synthesised: %s: %s", job.run.label, error)
                    failed[job.run.bold] = str(error)
                    continue
                if pending:  # at most one run is written while the next is sampled
                    pending.pop().result()
                pending.append(writer.submit(_write, plan, job, synthetic))
        for future in pending:
            future.result()
    wanted = {run.bold for run in runs}
    return {path: reason for path, reason in failed.items() if path in wanted}


def _by_participant(jobs: Sequence[_Job]) -> dict[str, list[_Job]]:
    """Group the jobs by participant, in order."""
    groups: dict[str, list[_Job]] = {}
    for job in jobs:
        groups.setdefault(job.run.participant, []).append(job)
    return groups


Reading = dict[Path, Future[tuple[Carrier, RunStatistics | None]]]


def _read_ahead(reader: ThreadPoolExecutor, source: SiblingReader, runs: Sequence[Run]) -> Reading:
    """Start reading a participant's runs."""
    return {run.bold: reader.submit(source.read, run) for run in runs}


def _collect(reading: Reading, failed: dict[Path, str]) -> _Siblings:
    """Wait for the runs; those that cannot be read are named in `failed`."""
    carriers, statistics = {}, {}
    for path, future in reading.items():
        try:
            carriers[path], of_run = future.result()
        except DataError as error:
            log.warning("not read: %s: %s", path.name, error)
            failed[path] = str(error)
            continue
        if of_run is not None:
            statistics[path] = of_run
    return _Siblings(carriers, statistics)


def _jobs(plan: SynthesisPlan, model: Model, runs: Sequence[Run], chosen: str) -> list[_Job]:
    """List the runs and samples that are not finished yet."""
    jobs = []
    alone = {
        participant
        for participant, count in Counter(r.participant for r in plan.siblings).items()
        if count < 2
    }
    for run in runs:
        individuals = "drawn" if chosen == "own" and run.participant in alone else chosen
        if individuals != chosen:
            log.info("%s: its participant has no other run; its response is drawn", run.label)
        for sample in range(1, plan.n_samples + 1):
            provenance = {
                "ModelHash": model.info.digest,
                ROLE_KEY: role_of(run, model.info.split),
                "RandomSeed": plan.seed,
                "Sample": sample,
                "Sampling": to_json(plan.sampling),
                "Individuals": individuals,
                CARRIER_KEY: plan.carrier,
                NOISE_LEVEL_KEY: _noise_level(str(plan.carrier), run.participant in alone),
                **plan.companions.provenance,
            }
            finished = is_finished(
                plan.out, run, sample=sample, n_samples=plan.n_samples,
                provenance=provenance,
            )  # fmt: skip
            if not finished:
                jobs.append(_Job(run, sample, individuals, provenance))
    return jobs


def role_of(run: Run, split: Split) -> str:
    """Return the role of a run's participant in the training of a model."""
    return NEW if run.new else split.role(run.participant)


def _noise_level(carrier: str, alone: bool) -> str:
    """Say where a run has its noise level from."""
    if carrier != "own":
        return carrier
    return OWN_RUN if alone else "other runs"


def _synthesise(
    synthesiser: Synthesiser,
    inference: IndividualInference | None,
    job: _Job,
    known: _Siblings,
    plan: SynthesisPlan,
) -> _Synthetic:
    """Synthesise one run."""
    run, seed, model = job.run, plan.seed, synthesiser.model
    events = read_events(run.events, duration=run.duration)
    events = evoked_by_model(events, run.task, model.info.vocabulary, plan.companions.implants)
    # samples of a new participant's run are the same participant again, not another nobody
    sample = 1 if run.new else job.sample
    seeds = (
        participant_seed(seed, run.participant, sample),
        run_seed(seed, run.label, job.sample),
    )
    is_own = plan.carrier == "own"
    carrier = (
        known.carriers[run.bold]
        if is_own
        else nobodys_carrier(run, str(plan.carrier), model, seeds)
    )
    # in a group without individual differences all have the networks of one participant
    whose = "" if job.individuals == "group" else run.participant
    participant = participant_seed(seed, whose, sample)
    deviation = deviation_of(
        run.bold, job.individuals, known.statistics, inference, participant + 1
    )
    high_pass = model.info.config.preprocess.removed_high_pass
    removed = removed_basis(run.n_volumes, run.t_r, high_pass)
    data = synthesiser.synthesise(
        run,
        carrier,
        noise_sd_of(run.bold, known.carriers) if is_own else carrier.noise_sd,
        events,
        seeds[1],
        participant,
        deviation,
        noise_of(run.bold, job.individuals, known.statistics, model.noise, removed),
        len(known.carriers) - 1 if is_own else 0,
    )
    maps = response_maps(synthesiser, run, carrier, deviation) if plan.companions.maps else {}
    return _Synthetic(data, carrier.mask, maps, motion_of(run, model.motion, seeds, own=is_own))


def _write(plan: SynthesisPlan, job: _Job, synthetic: _Synthetic) -> None:
    """Write one run with its companions, in the writer's thread."""
    plan.companions.write(
        plan.out,
        job.run,
        synthetic.data,
        synthetic.mask,
        synthetic.maps,
        synthetic.motion,
        seed=plan.seed,
        provenance=job.provenance,
        sample=job.sample,
        n_samples=plan.n_samples,
        sources=plan.sources,
    )
