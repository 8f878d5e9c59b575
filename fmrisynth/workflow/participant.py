"""Carry out the participant level: learn or load a model, and write synthetic runs."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lightning_fabric import Fabric

from fmrisynth.bids.anatomy import copy_anatomy
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.dataset_files import write_dataset_files, write_participants
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.events import read_events
from fmrisynth.bids.redesign import with_events
from fmrisynth.bids.validation import validation
from fmrisynth.errors import DataError, UsageError
from fmrisynth.evaluation.runs.atlas import load_atlas
from fmrisynth.model.carriers import MINIMUM_PARTICIPANTS
from fmrisynth.model.info import ModelInfo
from fmrisynth.model.model import Model
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.synthesis.carriers import no_carriers
from fmrisynth.synthesis.companions import MAPS, SERIES, Companions, evoked_by_model
from fmrisynth.synthesis.implants import Implants, read_implants, unused_effects
from fmrisynth.synthesis.runs import SynthesisPlan, role_of, write_synthetic_runs
from fmrisynth.workflow.dataset import (
    check_written,
    find_dataset,
    require_space,
    runs_to_write,
)
from fmrisynth.workflow.ending import remove_work_files, report_failures
from fmrisynth.workflow.learning import learn_or_load
from fmrisynth.workflow.learning_data import LearningData, find_learning_data
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
    check_written(settings)
    with contextlib.ExitStack() as validated:
        for root in (settings.bids_dir, *settings.learn_from.values()):
            checked = validation(root, settings.work_dir, skip=settings.skip_validation)
            validated.enter_context(checked)
        dataset = find_dataset(settings)
        learning = find_learning_data(settings, dataset)
        selected = runs_to_write(settings, dataset, learning.own_split)
        _check_carriers(settings, learning)
        designed = with_events(selected, settings.events, dataset.root)
        companions = _companions(settings, designed)
    nprocs = fitting_processes(learning.runs, settings.processes, settings.memory)
    sources = write_dataset_files(
        settings.output_dir,
        dataset.root,
        dataset.derivatives,
        settings.layout,
        learning.described,
    )
    # under torchrun or SLURM this process is one of several, which share the work
    fabric = make_fabric(settings.device, settings.precision, settings.seed)
    model = learn_or_load(learning, settings, nprocs, fabric)
    if settings.train_only:
        if fabric.is_global_zero:
            remove_work_files(settings)
        return
    require_space(model.info.space, dataset)
    _check_designs(selected, designed, model.info, companions.implants)
    _warn_of_unlearned(designed, model.info, companions.implants)
    model, dataset, designed = _recognise(model, dataset, designed)
    failed = _synthesise(model, designed, dataset, settings, sources, companions, fabric)
    if fabric.is_global_zero:
        _complete_output(settings, selected, model.info)
        remove_work_files(settings)
    report_failures(dict(dataset.skipped) | failed, settings, "written")


def _recognise(
    model: Model, dataset: Dataset, runs: Sequence[Run]
) -> tuple[Model, Dataset, tuple[Run, ...]]:
    """Name participants and sites as the dataset does, or as the model has learned them."""
    info, known = model.info, model.info.recognise(dataset)
    if known is None:
        log.info(
            "the model has learned from no participant of %s but from %s: all are unseen",
            dataset.root, "; ".join(learned.title for learned in info.datasets),
        )  # fmt: skip
    model = replace(model, info=info.known_as(known))
    dataset = replace(dataset, runs=info.state_sites(dataset.runs, known))
    return model, dataset, info.state_sites(runs, known)


def _check_carriers(settings: Settings, learning: LearningData) -> None:
    """Refuse carriers that are nobody's, before a model is trained that cannot draw any."""
    new = settings.new_participants is not None
    if not new and settings.carrier in (None, "own"):
        return
    n_training = len(learning.split.training)
    if n_training < MINIMUM_PARTICIPANTS and not settings.model_path.exists():
        raise no_carriers(str(settings.carrier), n_training, new=new)


def _companions(settings: Settings, runs: Sequence[Run]) -> Companions:
    """Read what is to be added to the runs and written beside them, before anything is computed."""
    implants = None
    if settings.implant is not None:
        implants = read_implants(settings.implant)
        if unused := unused_effects(implants, _trial_types_of(runs)):
            raise UsageError(
                f"--implant {settings.implant}: no run has events of the trial type "
                f"{', '.join(map(repr, unused))}. Give a design that has them with --events."
            )
    atlas = None
    if SERIES in settings.also and (atlas := load_atlas(runs[0].space)) is None:
        raise UsageError(
            f"--also {SERIES}: there is no atlas for runs in the space {runs[0].space}, or it "
            "cannot be had; the log says which. Set TEMPLATEFLOW_HOME to a folder that holds it."
        )
    return Companions(implants, MAPS in settings.also, atlas)


def _trial_types_of(runs: Sequence[Run]) -> list[tuple[str, set[str]]]:
    """Read the task and the trial types of each run whose events can be read."""
    found = []
    for run in runs:
        with contextlib.suppress(DataError):  # reported where the run is written
            names = read_events(run.events, duration=run.duration)["trial_type"].unique()
            found.append((run.task, {str(name) for name in names}))
    return found


def _check_designs(
    selected: Sequence[Run],
    designed: Sequence[Run],
    info: ModelInfo,
    implants: Implants | None,
) -> None:
    """Refuse events of the user whose trial types neither the model nor an implant has."""
    changed = {n.task: n.events for o, n in zip(selected, designed, strict=True) if n is not o}
    for task, path in changed.items():
        events = evoked_by_model(read_events(path), task, info.vocabulary, implants)
        info.vocabulary.check(task, events, str(path))


def _warn_of_unlearned(runs: Sequence[Run], info: ModelInfo, implants: Implants | None) -> None:
    """Name once the trial types that no training participant has; their events are baseline."""
    learned = set(info.vocabulary.trial_types)
    rare: Counter[str] = Counter()
    for task, names in _trial_types_of(runs):
        for name in names:
            implanted = implants is not None and implants.concern(task, name)
            if (task, name) not in learned and task in info.vocabulary.tasks and not implanted:
                rare[f"{task}/{name}"] += 1
    for name, count in sorted(rare.items()):
        log.warning(
            "no training participant has the trial type %s; its events count as baseline (in %d "
            "runs)", name, count,
        )  # fmt: skip


def _synthesise(
    model: Model,
    runs: Sequence[Run],
    dataset: Dataset,
    settings: Settings,
    sources: Mapping[str, Path],
    companions: Companions,
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
        carrier=settings.carrier,
        work_dir=settings.work_path,
        companions=companions,
    )
    failed = write_synthetic_runs(plan, model, runs, fabric)
    fabric.barrier()
    return failed


def _complete_output(settings: Settings, selected: Sequence[Run], info: ModelInfo) -> None:
    """Write the files that concern all runs of the output, those of earlier calls included."""
    if settings.layout == "raw":
        _copy_anatomy(settings, selected)
    unreadable: dict[Path, str] = {}  # runs of earlier calls, which the group level reports
    present = find_synthetic_runs(settings.output_dir, unreadable)
    roles = {run.participant: role_of(run, info.split) for run in present}
    write_participants(settings.output_dir, roles)


def _copy_anatomy(settings: Settings, runs: Sequence[Run]) -> None:
    """Put a real T1w image beside the synthetic runs, where there is one in their space."""
    missing = copy_anatomy(settings.output_dir, runs)
    if missing:
        log.warning(
            "no T1w image in the space of the runs was found for %s; fMRIPrep needs one for each "
            "participant, in sub-*/anat of %s", ", ".join(missing), settings.output_dir,
        )  # fmt: skip
