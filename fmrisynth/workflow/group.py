"""Carry out the group level: compare synthetic with held-out real runs, write the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from fmrisynth import __version__
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.sham import with_sham_events
from fmrisynth.bids.synthetic_sidecars import NEW
from fmrisynth.config.model import ModelConfig
from fmrisynth.errors import DataError
from fmrisynth.evaluation.cohort.contrasts import read_contrasts
from fmrisynth.evaluation.cohort.sources import runs_to_compare
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.export import write_maps, write_metrics
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.evaluation.runs.atlas import load_atlas
from fmrisynth.evaluation.runs.glm import GlmSettings
from fmrisynth.evaluation.storage import load_evaluation, save_evaluation
from fmrisynth.model.info import ModelInfo, read_info
from fmrisynth.model.skill import SKILL_NAME, read_skill
from fmrisynth.preprocess.splits import Split
from fmrisynth.reports.html import write_citation, write_group_report
from fmrisynth.reports.participant import write_participant_report
from fmrisynth.runtime.progress import track
from fmrisynth.runtime.workers import Map, spread
from fmrisynth.workflow.baselines import write_baselines, write_statistics_only
from fmrisynth.workflow.dataset import find_dataset, participants_of, require_space, select_runs
from fmrisynth.workflow.ending import remove_work_files, report_failures
from fmrisynth.workflow.generators import (
    MODEL_NAME,
    find_compared,
    find_judged,
    find_own_runs,
    judged_apart,
)
from fmrisynth.workflow.judging import judged_by, recognised
from fmrisynth.workflow.memory import fitting_processes
from fmrisynth.workflow.settings import Settings
from fmrisynth.workflow.words import SHAM, STATISTICS_ONLY

__all__ = ["run_group"]

log = logging.getLogger(__name__)


@dataclass
class _Inputs:
    """Hold what the group level compares.

    Attributes
    ----------
    dataset : Dataset
        The dataset, of which some participants may have been asked for.
    real, synthetic : sequence of Run
        Their runs, and the finished runs of the generators that are judged.
    info : ModelInfo or None
        Model that wrote the synthetic runs, with the split of the dataset's participants; None
        where another program wrote them.
    foreign : Split or None
        Where the model has learned from nobody of the dataset, who is judged (``held_out``), and
        who stands where training participants would.
    nprocs : int
        Number of processes that read runs.
    problems : dict
        Files that could not be used, with the reason; every stage adds its own.
    judged : mapping
        Name → runs of the generators that are judged, the one under test first.
    """

    dataset: Dataset
    real: Sequence[Run]
    synthetic: Sequence[Run]
    info: ModelInfo | None
    nprocs: int
    problems: dict[Path, str]
    judged: Mapping[str, Sequence[Run]]
    foreign: Split | None

    def side(self, participant: str) -> str:
        """Return ``training`` for somebody whose real runs make ceilings and teach baselines."""
        return (self.foreign or self).role(participant)

    def role(self, participant: str) -> str:
        """Return whether the model, or the program that is judged, has learned from somebody."""
        if self.info is not None:
            return self.info.split.role(participant)
        written = {run.participant for runs in self.judged.values() for run in runs}
        return "held_out" if participant in written else "training"

    @property
    def high_pass(self) -> float:
        """Cut-off of the high-pass filter (Hz): the model's, else the default."""
        config = self.info.config if self.info is not None else ModelConfig()
        return config.preprocess.high_pass


def run_group(settings: Settings) -> None:
    """Compare synthetic runs with held-out real ones and write the report.

    Raises
    ------
    FmrisynthError
        With the exit code and the message that the user sees.
    """
    inputs = _find_inputs(settings)
    with spread(inputs.nprocs) as each:
        if settings.reports_only:
            evaluation = load_evaluation(settings.evaluation_path)
        else:
            evaluation = _evaluate(inputs, settings, each)
            _write_results(evaluation, settings)
        pages = _participant_pages(inputs, evaluation.skipped, settings)
        # other processes write them while this one writes the group's
        written = each(_write_participant_page, pages)
        _write_group_page(evaluation, inputs, settings)
        inputs.problems |= evaluation.skipped  # the group page has notices of its own about these
        bar = track(written, total=len(pages), desc="Participant pages", unit="page")
        for page, problem in zip(pages, bar, strict=True):
            if problem:
                log.warning("%s was not written: %s", page.target.name, problem)
                inputs.problems[page.target] = problem
    remove_work_files(settings)
    report_failures(inputs.problems, settings, "compared")


def _find_inputs(settings: Settings) -> _Inputs:
    """Find the model, the real runs and the synthetic runs of this output."""
    info = None if settings.synthetic else read_info(settings.model_path)
    dataset = find_dataset(settings)
    foreign = None
    if info is not None:
        require_space(info.space, dataset)
        info, dataset, foreign = recognised(info, dataset, settings.seed)
    real = select_runs(dataset, settings.selection.participants)
    nprocs = fitting_processes(
        real, settings.processes, settings.memory, simulating=settings.simulating
    )
    problems = dict(dataset.skipped)
    if settings.synthetic:
        names = (*settings.baselines, *settings.compare, SHAM)
        judged = find_judged(settings.synthetic, real, names, problems)
    else:
        judged = judged_apart(MODEL_NAME, find_own_runs(settings.output_dir, problems))
    synthetic = [run for runs in judged.values() for run in runs]
    return _Inputs(dataset, real, synthetic, info, nprocs, problems, judged, foreign)


def _evaluate(inputs: _Inputs, settings: Settings, each: Map) -> Evaluation:
    """Compare this output, other outputs and the baselines with the held-out real runs."""
    contrasts = read_contrasts(settings.contrasts) if settings.contrasts else ()
    held_out = [run for run in inputs.real if inputs.side(run.participant) != "training"]
    training = [run for run in inputs.real if inputs.side(run.participant) == "training"]
    compared = find_compared(
        settings.compare,
        participants_of(held_out),
        (*inputs.judged, *settings.baselines, SHAM),
        inputs.problems,
    )
    scratch, imitated = settings.work_path / "group", held_out or training
    baselines: dict[str, tuple[Run, ...]] = {}
    notices: list[str] = []
    if STATISTICS_ONLY in settings.baselines and inputs.info is not None:
        name, first = next(iter(inputs.judged.items()))
        followed = runs_to_compare(first, set()) if all(run.new for run in first) else imitated
        runs = write_statistics_only(settings, inputs.dataset, followed, scratch)
        if runs is None:
            notices.append(
                f"Validation participants gave the network of this model no say: the runs of "
                f"{STATISTICS_ONLY} are those of {name}, and are not written anew."
            )
        baselines[STATISTICS_ONLY] = tuple(first) if runs is None else runs
    baselines |= write_baselines(
        [name for name in settings.baselines if name != STATISTICS_ONLY and training],
        training,
        imitated,
        scratch,
        inputs.high_pass,
        settings.seed,
        each,
    )
    sham = (
        {SHAM: with_sham_events(imitated, scratch / SHAM, settings.seed)} if settings.sham else {}
    )
    evaluation = evaluate(
        held_out,
        training,
        {**inputs.judged, **compared, **baselines, **sham},
        work_dir=_records_dir(settings),
        each=each,
        seed=settings.seed,
        settings=_glm_settings(inputs),
        contrasts=contrasts,
        atlas=load_atlas(inputs.real[0].space),
    )
    return replace(evaluation, notices=(*evaluation.notices, *notices))


def _glm_settings(inputs: _Inputs) -> GlmSettings:
    """Model the trial types that the model has learned; events of others are baseline."""
    if inputs.info is None:
        return GlmSettings()
    return GlmSettings(trial_types=inputs.info.vocabulary.trial_types)


def _records_dir(settings: Settings) -> Path:
    """Return the folder of the cached records of single runs."""
    return settings.work_path / "group" / "records"


def _write_results(evaluation: Evaluation, settings: Settings) -> None:
    """Write the comparison itself, its table of metrics and its maps."""
    save_evaluation(evaluation, settings.evaluation_path)
    write_metrics(evaluation, settings.output_dir / "group" / "metrics.tsv")
    write_maps(evaluation, settings.output_dir / "group" / "maps")


def _write_group_page(evaluation: Evaluation, inputs: _Inputs, settings: Settings) -> None:
    """Write group.html and the paragraph of methods."""
    out = settings.output_dir
    context = _context(settings, inputs)
    write_group_report(evaluation, out / "group.html", context)
    write_citation(evaluation, out / "logs" / "CITATION.md", _versions())


@dataclass(frozen=True)
class _Page:
    """Hold what the page of one participant is written from."""

    real: Sequence[Run]
    synthetic: Sequence[Run]
    target: Path
    work_dir: Path
    settings: GlmSettings
    context: Mapping[str, Any]


def _participant_pages(
    inputs: _Inputs, skipped: Mapping[Path, str], settings: Settings
) -> list[_Page]:
    """List sub-XX.html for each participant that has synthetic runs."""
    pages, unusable = [], inputs.problems.keys() | skipped.keys()
    for participant in participants_of(inputs.synthetic):
        real, synthetic = (
            [r for r in runs if r.participant == participant and r.bold not in unusable]
            for runs in (inputs.real, inputs.synthetic)
        )
        if not synthetic:
            continue
        context = {
            "dataset": settings.bids_dir.resolve().name,
            "role": NEW if synthetic[0].new else inputs.role(participant),
        }
        pages.append(
            _Page(
                real,
                synthetic,
                target=settings.output_dir / f"sub-{participant}.html",
                work_dir=_records_dir(settings),
                settings=_glm_settings(inputs),
                context=context,
            )
        )
    return pages


def _write_participant_page(page: _Page) -> str:
    """Write the page of one participant, or say why not."""
    try:
        write_participant_report(
            page.real,
            page.synthetic,
            page.target,
            work_dir=page.work_dir,
            settings=page.settings,
            context=page.context,
        )
    except DataError as error:
        return str(error)
    return ""


def _versions() -> dict[str, str]:
    """Return the versions of the packages that decide the results."""
    names = ("torch", "nilearn", "nibabel", "numpy", "scipy")
    return {"fmrisynth": __version__} | {name: metadata.version(name) for name in names}


def _context(settings: Settings, inputs: _Inputs) -> dict[str, Any]:
    """Return what the report says about model, versions, training and missing runs."""
    info, problems = inputs.info, inputs.problems
    notices = [f"Left out: {path.name}: {reason}" for path, reason in problems.items()]
    if info is not None and inputs.foreign is not None:
        notices.insert(0, judged_by(inputs.foreign, info))
    described = {
        "dataset": settings.bids_dir.resolve().name,
        "versions": _versions(),
        "notices": notices,
    }
    if info is None:
        return described
    curves = {
        f"{stage} training": settings.model_path / f"curves-{stage}.png"
        for stage in ("autoencoder", "diffusion")
    }
    return described | {
        "settings": {f"model: {name}": value for name, value in info.provenance.items()},
        "skill": read_skill(settings.model_path / SKILL_NAME),
        "figures": {title: path for title, path in curves.items() if path.is_file()},
    }
