"""The whole order of the work, a named call per stage; the command line calls nothing else."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from tqdm import tqdm

from fmrisynth import __version__
from fmrisynth.bids.anatomy import copy_anatomy
from fmrisynth.bids.dataset import Dataset, Run, find_runs
from fmrisynth.bids.derivatives import (
    find_synthetic_runs,
    write_dataset_files,
    write_participants,
)
from fmrisynth.bids.events import read_events
from fmrisynth.bids.locations import check_output_dir, check_work_dir
from fmrisynth.bids.redesign import with_events
from fmrisynth.bids.selection import require_labels
from fmrisynth.bids.validation import validation
from fmrisynth.errors import DataError, UsageError
from fmrisynth.evaluation.atlas import load_atlas
from fmrisynth.evaluation.contrasts import read_contrasts
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.evaluation.saved import load_evaluation, save_evaluation
from fmrisynth.evaluation.study import evaluate
from fmrisynth.evaluation.tables import write_maps, write_metrics
from fmrisynth.generators import (
    MODEL_NAME,
    find_compared,
    own_runs,
    write_baselines,
)
from fmrisynth.learning import TrainingPlan, learn_model
from fmrisynth.model import Model, ModelInfo, read_info
from fmrisynth.production import Production, write_synthetic_runs
from fmrisynth.reports.html import write_citation, write_group_report
from fmrisynth.reports.participant import write_participant_report
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.runtime.files import make_folder, remove_leftovers
from fmrisynth.runtime.resources import fitting_processes
from fmrisynth.settings import Settings

__all__ = ["find_dataset", "run_group", "run_participant", "select_runs"]

LOCK_MESSAGE_SECONDS = 5.0

log = logging.getLogger(__name__)


def run_participant(settings: Settings) -> None:
    """Learn or load a model, and write the synthetic runs of the selected participants.

    Raises
    ------
    FmrisynthError
        With the exit code and the message that the user sees.
    """
    with validation(settings.bids_dir, settings.work_dir, skip=settings.skip_validation):
        dataset = find_dataset(settings)
        selected = select_runs(dataset, settings.selection.participants)
        asked = with_events(selected, settings.events, dataset.root)
    nprocs = fitting_processes(dataset.runs, settings.nprocs, settings.memory)
    sources = write_dataset_files(
        settings.output_dir, dataset.root, dataset.derivatives, settings.layout
    )
    # under torchrun or SLURM this process is one of several, which share the work
    fabric = make_fabric(settings.device, settings.precision, settings.seed)
    model = _learn_or_load(dataset, settings, nprocs, fabric)
    if settings.train_only:
        log.info("the model is in %s", settings.model_path)
        if fabric.is_global_zero:
            _clean(settings)
        return
    _check_designs(selected, asked, model.info)
    failed = write_synthetic_runs(
        Production(
            out=settings.output_dir,
            sampling=settings.sampling(model.info.config.sampling),
            n_samples=settings.n_samples,
            seed=settings.seed,
            sources=sources,
        ),
        model,
        asked,
        fabric,
    )
    fabric.barrier()
    if fabric.is_global_zero:
        _finish_participants(settings, selected, model.info)
    _report_failures(dict(dataset.skipped) | failed, settings, "written")


def _check_designs(selected: Sequence[Run], asked: Sequence[Run], info: ModelInfo) -> None:
    """Refuse new events with trial types that the model has not learned, before anything else."""
    changed = {n.task: n.events for o, n in zip(selected, asked, strict=True) if n is not o}
    for task, path in changed.items():
        info.vocabulary.check(task, read_events(path), str(path))


def _finish_participants(settings: Settings, selected: Sequence[Run], info: ModelInfo) -> None:
    """Write what tells of all runs that are there now, and tidy up."""
    if settings.layout == "raw":
        _copy_anatomy(settings, selected)
    unreadable: dict[Path, str] = {}  # runs of other calls; the group level tells of them
    present = {run.participant for run in find_synthetic_runs(settings.output_dir, unreadable)}
    write_participants(settings.output_dir, {p: info.split.role(p) for p in present})
    _clean(settings)


def run_group(settings: Settings) -> None:
    """Compare synthetic runs with held-out real ones and write the report.

    Raises
    ------
    FmrisynthError
        With the exit code and the message that the user sees.
    """
    info = read_info(settings.model_path)
    dataset = find_dataset(settings)
    real = select_runs(dataset, settings.selection.participants)
    nprocs = fitting_processes(
        real, settings.nprocs, settings.memory, simulating=settings.simulating
    )
    problems = dict(dataset.skipped)
    synthetic = own_runs(settings.output_dir, problems)
    records = settings.work_path / "group" / "records"
    if settings.reports_only:
        evaluation = load_evaluation(settings.evaluation_path)
    else:
        evaluation = _evaluate(real, synthetic, info, settings, nprocs, problems)
        save_evaluation(evaluation, settings.evaluation_path)
        write_metrics(evaluation, settings.output_dir / "group" / "metrics.tsv")
        write_maps(evaluation, settings.output_dir / "group" / "maps")
    out = settings.output_dir
    write_group_report(evaluation, out / "group.html", _context(settings, info, problems))
    problems |= evaluation.skipped  # whose own notices the report has already
    write_citation(evaluation, out / "logs" / "CITATION.md", _versions())
    _write_participant_pages(real, synthetic, info, records, settings, nprocs, problems)
    _clean(settings)
    _report_failures(problems, settings, "compared")


def _evaluate(
    real: Sequence[Run],
    synthetic: Sequence[Run],
    info: ModelInfo,
    settings: Settings,
    nprocs: int,
    problems: dict[Path, str],
) -> Evaluation:
    """Compare all generators; `problems` gets the runs that could not be compared."""
    contrasts = read_contrasts(settings.contrasts) if settings.contrasts else ()
    held_out = [r for r in real if info.split.role(r.participant) != "training"]
    training = [r for r in real if info.split.role(r.participant) == "training"]
    taken = (MODEL_NAME, *settings.baselines)
    compared = find_compared(settings.compare, _people(held_out), taken, problems)
    scratch = settings.work_path / "group"
    baselines = write_baselines(
        settings.baselines,
        training,
        held_out or training,
        scratch,
        info.config.preprocess.high_pass,
        settings.seed,
    )
    return evaluate(
        held_out,
        training,
        {MODEL_NAME: synthetic, **compared, **baselines},
        work_dir=scratch / "records",
        nprocs=nprocs,
        seed=settings.seed,
        contrasts=contrasts,
        atlas=load_atlas(real[0].space),
    )


def find_dataset(settings: Settings) -> Dataset:
    """Find the runs of the dataset: all participants, since a model learns from all."""
    check_output_dir(settings.bids_dir, settings.output_dir, settings.derivatives.values())
    check_work_dir(settings.bids_dir, settings.work_path)
    dataset = find_runs(
        settings.bids_dir,
        derivatives=settings.derivatives,
        selection=replace(settings.selection, participants=()),
        database_dir=settings.database_dir,
    )
    log.info("found %d runs of %d participants", len(dataset.runs), len(_people(dataset.runs)))
    return dataset


def _people(runs: Sequence[Run]) -> list[str]:
    """Participants of some runs, sorted."""
    return sorted({run.participant for run in runs})


def select_runs(dataset: Dataset, participants: tuple[str, ...]) -> tuple[Run, ...]:
    """Keep the participants asked for; an unknown one is an error that lists those there are."""
    if not participants:
        return dataset.runs
    require_labels("sub", participants, _people(dataset.runs), dataset.root)
    return tuple(run for run in dataset.runs if run.participant in participants)


def _learn_or_load(dataset: Dataset, settings: Settings, nprocs: int, fabric: Fabric) -> Model:
    """Load the model if there is one; else train it, one call at a time."""
    path = settings.model_path
    if fabric.broadcast(path.exists()):
        log.info("loading the model of %s", path)
        return Model.load(path)
    if settings.model_dir is not None:
        raise UsageError(f"--model {path}: there is no such directory.")
    config = settings.config()
    make_folder(settings.work_path)
    # beside the model, not in the work directory: on a cluster each process may have its own
    lock: AbstractContextManager[object] = nullcontext()
    if fabric.is_global_zero:  # the processes of one call hold one lock
        lock = _training_lock(make_folder(settings.output_dir / "logs") / "training.lock")
    with lock:
        # another call may have trained it while this one waited; all of its processes must agree
        if not fabric.broadcast(path.exists()):
            plan = TrainingPlan(
                config,
                settings.preset,
                settings.seed,
                settings.max_steps,
                settings.max_seconds,
                nprocs,
            )
            model = learn_model(dataset.runs, plan, settings.work_path, fabric)
            if fabric.is_global_zero:
                model.save(path)
            fabric.barrier()
    return Model.load(path)


def _training_lock(path: Path) -> AbstractContextManager[object]:
    """Take the lock of a training; the system frees a dead process's lock by itself."""
    lock = FileLock(path)
    # what acquire returns gives it back once; entering the lock itself would take it twice
    try:
        return lock.acquire(timeout=LOCK_MESSAGE_SECONDS)
    except Timeout:
        log.warning("another process is training the model (%s is locked); waiting for it", path)
        return lock.acquire()


def _copy_anatomy(settings: Settings, runs: Sequence[Run]) -> None:
    """Put a real T1w image beside the synthetic runs, where there is one in their space."""
    missing = copy_anatomy(settings.output_dir, runs)
    if missing:
        log.warning(
            "no T1w image in the space of the runs was found for %s; fMRIPrep needs one for each "
            "participant, in sub-*/anat of %s", ", ".join(missing), settings.output_dir,
        )  # fmt: skip


def _clean(settings: Settings) -> None:
    """Remove what a finished run no longer needs."""
    remove_leftovers(settings.output_dir)
    remove_leftovers(settings.work_path)
    if settings.work_dir is None:
        shutil.rmtree(settings.work_path, ignore_errors=True)


def _report_failures(problems: Mapping[Path, str], settings: Settings, done: str) -> None:
    """Make bad runs known: all else is done, the exit code says that something is missing."""
    if problems and not settings.skip_bad_runs:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in problems.items())
        raise DataError(
            f"{len(problems)} runs could not be used; all others were {done}:\n{listed}\n"
            "Repair them, leave them out with a filter, or pass --skip-bad-runs to accept this."
        )


def _write_participant_pages(
    real: Sequence[Run],
    synthetic: Sequence[Run],
    info: ModelInfo,
    records: Path,
    settings: Settings,
    nprocs: int,
    problems: dict[Path, str],
) -> None:
    """Write sub-XX.html for each participant that has synthetic runs."""
    for person in tqdm(_people(synthetic), desc="Participant pages", unit="page"):
        target = settings.output_dir / f"sub-{person}.html"
        context = {"dataset": settings.bids_dir.resolve().name, "role": info.split.role(person)}
        mine, made = (
            [run for run in runs if run.participant == person and run.bold not in problems]
            for runs in (real, synthetic)
        )
        if not made:
            continue
        try:
            write_participant_report(
                mine,
                made,
                target,
                work_dir=records,
                nprocs=nprocs,
                context=context,
            )
        except DataError as error:
            log.warning("%s was not written: %s", target.name, error)
            problems[target] = str(error)


def _versions() -> dict[str, str]:
    """Versions of what decides the figures."""
    names = ("torch", "nilearn", "nibabel", "numpy", "scipy")
    return {"fmrisynth": __version__} | {name: metadata.version(name) for name in names}


def _context(settings: Settings, info: ModelInfo, problems: Mapping[Path, str]) -> dict[str, Any]:
    """Collect what the report says of how its data were made, and of what is missing in it."""
    notices = [f"Left out: {path.name}: {reason}" for path, reason in problems.items()]
    curves = {
        f"{stage} training": settings.model_path / f"curves-{stage}.png"
        for stage in ("autoencoder", "diffusion")
    }
    return {
        "dataset": settings.bids_dir.resolve().name,
        "settings": {f"model: {name}": value for name, value in info.provenance.items()},
        "versions": _versions(),
        "notices": notices,
        "figures": {title: path for title, path in curves.items() if path.is_file()},
    }
