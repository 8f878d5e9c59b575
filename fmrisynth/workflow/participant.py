"""Carry out the participant level: learn or load a model, and write synthetic runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_fabric import Fabric

from fmrisynth.bids.anatomy import copy_anatomy
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.dataset_files import write_dataset_files, write_participants
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.events import read_events
from fmrisynth.bids.redesign import with_events
from fmrisynth.bids.validation import validation
from fmrisynth.errors import DataError
from fmrisynth.model.model import Model, ModelInfo
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.synthesis.runs import SynthesisPlan, write_synthetic_runs
from fmrisynth.workflow.dataset import find_dataset, require_space, select_runs
from fmrisynth.workflow.ending import remove_work_files, report_failures
from fmrisynth.workflow.learning import learn_or_load
from fmrisynth.workflow.memory import fitting_processes
from fmrisynth.workflow.settings import Settings

__all__ = ["run_participant"]

log = logging.getLogger(__name__)


def run_participant(settings: Settings) -> None:
    """Learn or load a model, and write synthetic runs of the selected participants.

    Raises
    ------
    FmrisynthError
        With the exit code and the message that the user sees.
    """
    with validation(settings.bids_dir, settings.work_dir, skip=settings.skip_validation):
        dataset = find_dataset(settings)
        selected = select_runs(dataset, settings.selection.participants)
        designed = with_events(selected, settings.events, dataset.root)
    nprocs = fitting_processes(dataset.runs, settings.processes, settings.memory)
    sources = write_dataset_files(
        settings.output_dir, dataset.root, dataset.derivatives, settings.layout
    )
    # under torchrun or SLURM this process is one of several, which share the work
    fabric = make_fabric(settings.device, settings.precision, settings.seed)
    model = learn_or_load(dataset.runs, settings, nprocs, fabric)
    if settings.train_only:
        log.info("the model is in %s", settings.model_path)
        if fabric.is_global_zero:
            remove_work_files(settings)
        return
    require_space(model.info.space, dataset)
    _check_designs(selected, designed, model.info)
    _warn_of_unlearned(designed, model.info)
    failed = _synthesise(model, designed, dataset, settings, sources, fabric)
    if fabric.is_global_zero:
        _complete_output(settings, selected, model.info)
        remove_work_files(settings)
    report_failures(dict(dataset.skipped) | failed, settings, "written")


def _check_designs(selected: Sequence[Run], designed: Sequence[Run], info: ModelInfo) -> None:
    """Refuse events of the user whose trial types the model has not learned."""
    changed = {n.task: n.events for o, n in zip(selected, designed, strict=True) if n is not o}
    for task, path in changed.items():
        info.vocabulary.check(task, read_events(path), str(path))


def _warn_of_unlearned(runs: Sequence[Run], info: ModelInfo) -> None:
    """Name once the trial types that no training participant has; their events are baseline."""
    learned = set(info.vocabulary.trial_types)
    rare: dict[str, list[str]] = {}
    for run in runs:
        with contextlib.suppress(DataError):  # reported where the run is written
            names = read_events(run.events, duration=run.duration)["trial_type"].unique()
            for name in {str(name) for name in names}:
                if (run.task, name) not in learned and run.task in info.vocabulary.tasks:
                    rare.setdefault(f"{run.task}/{name}", []).append(run.label)
    for name, labels in sorted(rare.items()):
        log.warning(
            "no training participant has the trial type %s; its events count as baseline, in %d "
            "runs (%s%s)", name, len(labels), labels[0], ", …" if len(labels) > 1 else "",
        )  # fmt: skip


def _synthesise(
    model: Model,
    runs: Sequence[Run],
    dataset: Dataset,
    settings: Settings,
    sources: Mapping[str, Path],
    fabric: Fabric,
) -> dict[Path, str]:
    """Write the synthetic runs, and return those that failed with the reason."""
    plan = SynthesisPlan(
        out=settings.output_dir,
        sampling=settings.sampling(model.info.config.sampling),
        n_samples=settings.n_samples,
        seed=settings.seed,
        sources=sources,
        siblings=dataset.runs,
        individuals=settings.individuals,
        work_dir=settings.work_path,
    )
    failed = write_synthetic_runs(plan, model, runs, fabric)
    fabric.barrier()
    return failed


def _complete_output(settings: Settings, selected: Sequence[Run], info: ModelInfo) -> None:
    """Write the files that concern all runs of the output, those of earlier calls included."""
    if settings.layout == "raw":
        _copy_anatomy(settings, selected)
    unreadable: dict[Path, str] = {}  # runs of earlier calls, which the group level reports
    present = {run.participant for run in find_synthetic_runs(settings.output_dir, unreadable)}
    write_participants(settings.output_dir, {p: info.split.role(p) for p in present})


def _copy_anatomy(settings: Settings, runs: Sequence[Run]) -> None:
    """Put a real T1w image beside the synthetic runs, where there is one in their space."""
    missing = copy_anatomy(settings.output_dir, runs)
    if missing:
        log.warning(
            "no T1w image in the space of the runs was found for %s; fMRIPrep needs one for each "
            "participant, in sub-*/anat of %s", ", ".join(missing), settings.output_dir,
        )  # fmt: skip
