"""The whole order of the work, a named call per stage; the command line calls nothing else."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from fmrisynth import __version__
from fmrisynth.baselines.group_glm import write_baseline
from fmrisynth.bids.atomic import remove_leftovers
from fmrisynth.bids.dataset import Dataset, Run, Selection, find_runs
from fmrisynth.bids.derivatives import (
    find_synthetic_runs,
    write_dataset_files,
    write_participants,
)
from fmrisynth.bids.locations import check_output_dir, check_work_dir
from fmrisynth.bids.selection import require_labels
from fmrisynth.configuration import override
from fmrisynth.devices import make_fabric
from fmrisynth.errors import DataError, NoMatchError, UsageError
from fmrisynth.evaluation.study import evaluate
from fmrisynth.evaluation.tables import write_maps, write_metrics
from fmrisynth.learning import TrainingPlan, learn_model
from fmrisynth.model import Model, ModelConfig, ModelInfo, SamplingConfig, read_info
from fmrisynth.presets import PRESETS
from fmrisynth.production import Production, write_synthetic_runs
from fmrisynth.reports.html import write_citation, write_group_report
from fmrisynth.reports.participant import write_participant_report

__all__ = ["Settings", "run_group", "run_participant"]

MODEL_NAME = "fmrisynth"
LOCK_MESSAGE_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the command line asked for; its help says what each means."""

    bids_dir: Path
    output_dir: Path
    selection: Selection = field(default_factory=Selection)
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    model_dir: Path | None = None
    work_dir: Path | None = None
    preset: str = "demo"
    assignments: Mapping[str, str] = field(default_factory=dict)
    train_only: bool = False
    max_steps: int | None = None
    max_seconds: float | None = None
    n_samples: int = 1
    guidance: float | None = None
    sampler: str | None = None
    sampling_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    nprocs: int = 1
    skip_bad_runs: bool = False

    @property
    def model_path(self) -> Path:
        """The model asked for, or the one that this output holds."""
        return self.model_dir or self.output_dir / "model"

    @property
    def work_path(self) -> Path:
        """Caches and training states."""
        return self.work_dir or self.output_dir / "work"

    def config(self) -> ModelConfig:
        """Return the preset with its overrides."""
        if self.preset not in PRESETS:
            raise UsageError(f"--preset {self.preset}: expected one of {', '.join(PRESETS)}.")
        return override(PRESETS[self.preset], self.assignments)

    def sampling(self, default: SamplingConfig) -> SamplingConfig:
        """Return the model's own way of drawing, with what was asked for instead."""
        return replace(
            default,
            sampler=self.sampler or default.sampler,
            steps=self.sampling_steps or default.steps,
            guidance=default.guidance if self.guidance is None else self.guidance,
        )


def run_participant(settings: Settings) -> None:
    """Learn or load a model, and write the synthetic runs of the selected participants.

    Raises
    ------
    FmrisynthError
        With the exit code and the message that the user sees.
    """
    dataset = _find(settings)
    selected = _select(dataset, settings.selection.participants)
    sources = write_dataset_files(settings.output_dir, dataset.root, dataset.derivatives)
    model = _learn_or_load(dataset, settings)
    if settings.train_only:
        log.info("the model is in %s", settings.model_path)
        _clean(settings)
        return
    failed = write_synthetic_runs(
        Production(
            out=settings.output_dir,
            sampling=settings.sampling(model.info.config.sampling),
            n_samples=settings.n_samples,
            seed=settings.seed,
            device=settings.device,
            precision=settings.precision,
            sources=sources,
        ),
        model,
        selected,
    )
    present = {run.participant for run in find_synthetic_runs(settings.output_dir)}
    write_participants(settings.output_dir, {p: model.info.split.role(p) for p in present})
    _clean(settings)
    _report_failures(dataset, failed, settings)


def run_group(settings: Settings) -> None:
    """Compare synthetic runs with held-out real ones and write the report.

    Raises
    ------
    FmrisynthError
        With the exit code and the message that the user sees.
    """
    info = read_info(settings.model_path)
    dataset = _find(settings)
    real = _select(dataset, settings.selection.participants)
    synthetic = find_synthetic_runs(settings.output_dir)
    if not synthetic:
        raise NoMatchError(
            f"{settings.output_dir} holds no finished synthetic run; run the participant level "
            "first, with the same output directory."
        )
    held_out = [r for r in real if info.split.role(r.participant) != "training"]
    training = [r for r in real if info.split.role(r.participant) == "training"]
    scratch = settings.work_path / "group"
    baseline = write_baseline(
        training,
        held_out or training,
        scratch / "group-glm",
        info.config.preprocess.high_pass,
        settings.seed,
    )
    evaluation = evaluate(
        held_out,
        training,
        {MODEL_NAME: synthetic, "group-glm": baseline},
        work_dir=scratch / "records",
        nprocs=settings.nprocs,
        seed=settings.seed,
    )
    out = settings.output_dir
    write_metrics(evaluation, out / "group" / "metrics.tsv")
    write_maps(evaluation, out / "group" / "maps")
    context = _context(settings, info)
    write_group_report(evaluation, out / "group.html", context)
    write_citation(evaluation, out / "logs" / "CITATION.md", _versions())
    _write_participant_pages(real, synthetic, info, scratch / "records", settings)
    _clean(settings)


def _find(settings: Settings) -> Dataset:
    """Find the runs of the dataset: all participants, since a model learns from all."""
    check_output_dir(settings.bids_dir, settings.output_dir, settings.derivatives.values())
    check_work_dir(settings.bids_dir, settings.work_path)
    dataset = find_runs(
        settings.bids_dir,
        derivatives=settings.derivatives,
        selection=replace(settings.selection, participants=()),
    )
    log.info("found %d runs of %d participants", len(dataset.runs), len(_people(dataset.runs)))
    return dataset


def _people(runs: tuple[Run, ...]) -> list[str]:
    """Participants of some runs, sorted."""
    return sorted({run.participant for run in runs})


def _select(dataset: Dataset, participants: tuple[str, ...]) -> tuple[Run, ...]:
    """Keep the participants asked for; an unknown one is an error that lists those there are."""
    if not participants:
        return dataset.runs
    require_labels("sub", participants, _people(dataset.runs), dataset.root)
    return tuple(run for run in dataset.runs if run.participant in participants)


def _learn_or_load(dataset: Dataset, settings: Settings) -> Model:
    """Load the model if there is one; else train it, one process at a time."""
    path = settings.model_path
    if path.exists():
        log.info("loading the model of %s", path)
        return Model.load(path)
    if settings.model_dir is not None:
        raise UsageError(f"--model {path}: there is no such directory.")
    config = settings.config()
    settings.work_path.mkdir(parents=True, exist_ok=True)
    with _training_lock(settings.work_path / "training.lock"):
        if path.exists():  # another process has trained it while this one waited
            return Model.load(path)
        plan = TrainingPlan(
            config,
            settings.preset,
            settings.seed,
            settings.max_steps,
            settings.max_seconds,
            settings.nprocs,
        )
        fabric = make_fabric(settings.device, settings.precision, settings.seed)
        model = learn_model(dataset.runs, plan, settings.work_path, fabric)
        if fabric.is_global_zero:
            model.save(path)
        fabric.barrier()
    return Model.load(path)


def _training_lock(path: Path) -> FileLock:
    """Take the lock of a training; the system frees a dead process's lock by itself."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=LOCK_MESSAGE_SECONDS)
    except Timeout:
        log.warning("another process is training the model (%s is locked); waiting for it", path)
        lock.acquire()
    return lock


def _clean(settings: Settings) -> None:
    """Remove what a finished run no longer needs."""
    remove_leftovers(settings.output_dir)
    if settings.work_dir is None:
        shutil.rmtree(settings.work_path, ignore_errors=True)


def _report_failures(dataset: Dataset, failed: Mapping[Path, str], settings: Settings) -> None:
    """Make bad runs known: all else is written, the exit code says that something is missing."""
    problems = dict(dataset.skipped) | dict(failed)
    if problems and not settings.skip_bad_runs:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in problems.items())
        raise DataError(
            f"{len(problems)} runs could not be used; all others were written:\n{listed}\n"
            "Repair them, leave them out with a filter, or pass --skip-bad-runs to accept this."
        )


def _write_participant_pages(
    real: Sequence[Run],
    synthetic: Sequence[Run],
    info: ModelInfo,
    records: Path,
    settings: Settings,
) -> None:
    """Write sub-XX.html for each participant that has synthetic runs."""
    people = sorted({run.participant for run in synthetic})
    for person in tqdm(people, desc="Participant pages", unit="page"):
        write_participant_report(
            [run for run in real if run.participant == person],
            [run for run in synthetic if run.participant == person],
            settings.output_dir / f"sub-{person}.html",
            work_dir=records,
            nprocs=settings.nprocs,
            context={"dataset": settings.bids_dir.resolve().name, "role": info.split.role(person)},
        )


def _versions() -> dict[str, str]:
    """Versions of what decides the figures."""
    names = ("torch", "nilearn", "nibabel", "numpy", "scipy")
    return {"fmrisynth": __version__} | {name: metadata.version(name) for name in names}


def _context(settings: Settings, info: ModelInfo) -> dict[str, Any]:
    """Collect what the report says of how its data were made."""
    return {
        "dataset": settings.bids_dir.resolve().name,
        "settings": {f"model: {name}": value for name, value in info.provenance.items()},
        "versions": _versions(),
    }
