"""The group level: compare synthetic with held-out real runs, and write the report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fmrisynth import __version__
from fmrisynth.bids.dataset import Run
from fmrisynth.errors import DataError
from fmrisynth.evaluation.cohort.contrasts import read_contrasts
from fmrisynth.evaluation.evaluate import evaluate
from fmrisynth.evaluation.export import write_maps, write_metrics
from fmrisynth.evaluation.result import Evaluation
from fmrisynth.evaluation.runs.atlas import load_atlas
from fmrisynth.evaluation.storage import load_evaluation, save_evaluation
from fmrisynth.model.model import ModelInfo, read_info
from fmrisynth.reports.html import write_citation, write_group_report
from fmrisynth.reports.participant import write_participant_report
from fmrisynth.workflow.dataset import _clean, _people, _report_failures, find_dataset, select_runs
from fmrisynth.workflow.generators import MODEL_NAME, find_compared, own_runs, write_baselines
from fmrisynth.workflow.memory import fitting_processes
from fmrisynth.workflow.settings import Settings

__all__ = ["run_group"]

log = logging.getLogger(__name__)


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
        real, settings.processes, settings.memory, simulating=settings.simulating
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
