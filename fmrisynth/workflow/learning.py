"""Load the model of a call, or train it once for all calls that share the output."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from lightning_fabric import Fabric

from fmrisynth.errors import UsageError
from fmrisynth.model.model import Model
from fmrisynth.runtime.files import make_folder
from fmrisynth.runtime.locks import locked
from fmrisynth.training.learn import learn_model
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.workflow.learning_data import LearningData
from fmrisynth.workflow.settings import Settings

__all__ = ["learn_or_load"]

LOCK_MESSAGE_SECONDS = 5.0

log = logging.getLogger(__name__)


def learn_or_load(data: LearningData, settings: Settings, nprocs: int, fabric: Fabric) -> Model:
    """Load the model if its directory exists; else train and save it.

    Of several calls with one output a single one trains, while the others wait for its model.

    Parameters
    ----------
    data : LearningData
        All runs of all datasets; those of held-out participants are left out of training.
    settings : Settings
        Of the call.
    nprocs : int
        Number of processes that read runs.
    fabric : Fabric
        Device and precision.

    Raises
    ------
    UsageError
        ``--model`` names a directory that does not exist.
    """
    path = settings.model_path
    if fabric.broadcast(path.exists()):
        log.info("loading the model of %s", path)
        return Model.load(path)
    if settings.model_dir is not None:
        raise UsageError(f"--model {path}: there is no such directory.")
    make_folder(settings.work_path)
    # beside the model, not in the work directory: on a cluster each process may have its own
    lock: AbstractContextManager[object] = nullcontext()
    if fabric.is_global_zero:  # the processes of one call hold one lock
        name = make_folder(settings.output_dir / "logs") / "training.lock"
        message = f"another process is training the model ({name} is locked); waiting for it"
        lock = locked(name, patience=LOCK_MESSAGE_SECONDS, waiting=message)
    with lock:
        # another call may have trained it while this one waited; all of its processes must agree
        if not fabric.broadcast(path.exists()):
            _learn(data, settings, nprocs, fabric)
    return Model.load(path)


def _learn(data: LearningData, settings: Settings, nprocs: int, fabric: Fabric) -> None:
    """Train the model and save it."""
    plan = TrainingPlan(
        settings.config,
        settings.preset,
        settings.seed,
        settings.max_steps,
        settings.max_seconds,
        nprocs,
    )
    model = learn_model(data.runs, plan, settings.work_path, fabric)
    model.info = replace(model.info, datasets=data.datasets)
    if fabric.is_global_zero:
        model.save(settings.model_path)
    fabric.barrier()
