"""Describe what a call would do: its settings, the runs to read, the files to write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrisynth import __version__
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.derivatives import planned_files
from fmrisynth.bids.redesign import with_events
from fmrisynth.config.codec import to_json
from fmrisynth.config.model import ModelConfig
from fmrisynth.errors import UsageError
from fmrisynth.evaluation.cohort.contrasts import read_contrasts
from fmrisynth.preprocess.splits import Split
from fmrisynth.workflow.dataset import (
    check_written,
    find_dataset,
    participants_of,
    runs_to_write,
    select_runs,
)
from fmrisynth.workflow.generators import (
    MODEL_NAME,
    find_compared,
    find_judged,
    find_own_runs,
    judged_apart,
)
from fmrisynth.workflow.judging import recognised
from fmrisynth.workflow.learning_data import find_learning_data
from fmrisynth.workflow.memory import fitting_processes
from fmrisynth.workflow.settings import Settings
from fmrisynth.workflow.words import SHAM

if TYPE_CHECKING:
    from fmrisynth.model.info import ModelInfo

__all__ = ["preview"]

DATASET_FILES = (
    "dataset_description.json",
    "README.md",
    "CHANGES",
    ".bidsignore",
    "participants.tsv",
    "participants.json",
)


def preview(settings: Settings, level: str) -> str:
    """Describe what a call would do, without doing it.

    Parameters
    ----------
    settings : Settings
        Settings of the call.
    level : {"participant", "group"}
        Analysis level.

    Returns
    -------
    str
        JSON: version, level, settings, model, runs to read, files to write.

    Raises
    ------
    FmrisynthError
        The errors of the call that can be known beforehand.
    """
    settings = replace(settings, database_dir=None)  # an index would be written
    if level == "participant":
        check_written(settings)
    dataset = find_dataset(settings)
    if level == "participant":
        described = _participant(settings, dataset)
    else:
        described = _group(settings, dataset)
    content = {
        "fmrisynth": __version__,
        "level": level,
        "settings": _settings(settings, dataset.runs, level),
        "skipped": {str(path): reason for path, reason in dataset.skipped},
        **described,
    }
    return json.dumps(content, indent=2, default=str, ensure_ascii=False)


def _settings(settings: Settings, runs: Sequence[Run], level: str) -> dict[str, Any]:
    """Return all settings, with defaults resolved."""
    return asdict(settings) | {
        "model_dir": settings.model_path,
        "work_dir": settings.work_path,
        "nprocs": fitting_processes(
            runs,
            settings.processes,
            settings.memory,
            simulating=level == "group" and settings.simulating,
        ),
    }


def _participant(settings: Settings, dataset: Dataset) -> dict[str, Any]:
    """Describe the participant level."""
    out = settings.output_dir
    learning = find_learning_data(settings, dataset)
    selected = runs_to_write(settings, dataset, learning.own_split)
    selected = with_events(selected, settings.events, dataset.root)
    if settings.model_path.exists():
        info = _read_info(settings)
        model = _model(settings, info.config, info.split, "is there and will be loaded")
        training, model_files = [], []
    elif settings.model_dir is not None:
        raise UsageError(f"--model {settings.model_path}: there is no such directory.")
    else:
        split = learning.split
        model = _model(settings, settings.config, split, "will be trained")
        training = [run for run in learning.runs if split.role(run.participant) == "training"]
        model_files = [settings.model_path / "config.json", settings.model_path / "*.safetensors"]
    written = [] if settings.train_only else list(selected)
    samples = range(1, settings.n_samples + 1)
    targets = [
        path
        for run in written
        for sample in samples
        for path in planned_files(
            out, run, settings.layout, sample=sample, n_samples=settings.n_samples
        )
    ]
    return {
        "model": model,
        "reads": _read([*training, *written]),
        "writes": _written([*model_files, *(out / name for name in DATASET_FILES), *targets]),
    }


def _group(settings: Settings, dataset: Dataset) -> dict[str, Any]:
    """Describe the group level."""
    real = select_runs(dataset, settings.selection.participants)
    problems: dict[Path, str] = {}
    info = None
    if settings.synthetic:
        names = (*settings.baselines, *settings.compare, SHAM)
        judged = find_judged(settings.synthetic, real, names, problems)
        held_out = participants_of([run for runs in judged.values() for run in runs])
    else:
        info, _, foreign = recognised(_read_info(settings), dataset, settings.seed)
        judged = judged_apart(MODEL_NAME, find_own_runs(settings.output_dir, problems))
        held_out = sorted({r.participant for r in real} - set((foreign or info.split).training))
    synthetic = [run for runs in judged.values() for run in runs]
    compared = find_compared(
        settings.compare, held_out, (*judged, *settings.baselines, SHAM), problems
    )
    contrasts = read_contrasts(settings.contrasts) if settings.contrasts else ()
    participants = participants_of(synthetic)
    out = settings.output_dir
    pages = [out / "group.html", *(out / f"sub-{label}.html" for label in participants)]
    figures = [out / "group" / "metrics.tsv", out / "group" / "maps" / "*.nii.gz"]
    results = [] if settings.reports_only else [*figures, settings.evaluation_path]
    model = info and _model(settings, info.config, info.split, "is there and will be loaded")
    others = [run for runs in (*judged.values(), *compared.values()) for run in runs]
    return {
        "model": model,
        "unreadable": problems,
        "contrasts": [contrast.name for contrast in contrasts],
        "reads": _read([*real, *others]),
        "writes": _written([*pages, out / "logs" / "CITATION.md", *results]),
    }


def _read_info(settings: Settings) -> ModelInfo:
    """Read what config.json of the model says; only this needs the networks to be loaded."""
    from fmrisynth.model.info import read_info

    return read_info(settings.model_path)


def _model(settings: Settings, config: ModelConfig, split: Split, state: str) -> dict[str, Any]:
    """Describe the model: its settings, with those of sampling that the call asks for."""
    return {
        "directory": settings.model_path,
        "state": state,
        "split": to_json(split),
        "config": to_json(replace(config, sampling=settings.sampling(config.sampling))),
    }


def _read(runs: Iterable[Run]) -> dict[str, list[Path]]:
    """Return the files of runs by their labels, each run once."""
    return {
        f"{run.label} ({run.bold.name})": [
            p for p in (None if run.new else run.bold, run.mask, run.events) if p
        ]
        for run in dict.fromkeys(runs)
    }


def _written(paths: Iterable[Path]) -> dict[str, str]:
    """Return each file with whether it is new."""
    return {str(path): "there already" if path.exists() else "new" for path in paths}
