"""The whole order of the work, a named call per stage; the command line calls nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout
from lightning_fabric import Fabric

from fmrisynth.bids.anatomy import copy_anatomy
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.dataset_files import write_dataset_files, write_participants
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.events import read_events
from fmrisynth.bids.redesign import with_events
from fmrisynth.bids.validation import validation
from fmrisynth.errors import UsageError
from fmrisynth.model.model import Model, ModelInfo
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.runtime.files import make_folder
from fmrisynth.synthesis.runs import SynthesisPlan, write_synthetic_runs
from fmrisynth.training.learn import learn_model
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.workflow.dataset import _clean, _report_failures, find_dataset, select_runs
from fmrisynth.workflow.memory import fitting_processes
from fmrisynth.workflow.settings import Settings

__all__ = ["run_participant"]

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
    nprocs = fitting_processes(dataset.runs, settings.processes, settings.memory)
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
        SynthesisPlan(
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


def _learn_or_load(dataset: Dataset, settings: Settings, nprocs: int, fabric: Fabric) -> Model:
    """Load the model if there is one; else train it, one call at a time."""
    path = settings.model_path
    if fabric.broadcast(path.exists()):
        log.info("loading the model of %s", path)
        return Model.load(path)
    if settings.model_dir is not None:
        raise UsageError(f"--model {path}: there is no such directory.")
    config = settings.config
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
