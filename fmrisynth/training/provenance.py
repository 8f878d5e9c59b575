"""Record how a model was trained: steps and seconds of each stage, versions, losses."""

from __future__ import annotations

import csv
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fmrisynth import __version__
from fmrisynth.training.log import CURVES_NAME, LOG_NAME
from fmrisynth.training.plan import TrainingFolders, TrainingPlan
from fmrisynth.training.prepare import TrainingData

__all__ = ["Stopwatch", "training_provenance", "training_records"]

PACKAGES = ("torch", "numpy", "scipy", "nilearn", "nibabel")  # whose versions can change results


class Stopwatch:
    """Measure the seconds of named stages; called, it is a context manager around a stage.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds of each stage, in order.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure one stage."""
        started = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - started


def training_provenance(
    plan: TrainingPlan, data: TrainingData, folders: TrainingFolders, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Compose the provenance of a model, as `fmrisynth.model.info.ModelInfo` describes it.

    Parameters
    ----------
    plan : TrainingPlan
        Preset and seed.
    data : TrainingData
        The training runs.
    folders : TrainingFolders
        Logs of the two trainings: their steps, and their seconds over all calls of a
        training that was interrupted.
    seconds : mapping of str to float
        Seconds of each stage in this call.
    """
    steps, spent = {}, dict(seconds)
    for stage, folder in (("autoencoder", folders.autoencoder), ("denoiser", folders.diffusion)):
        last = _last_row(folder / LOG_NAME)
        if last is not None:
            steps[stage] = int(last["step"])
            spent[stage] = max(spent[stage], float(last["seconds"]))
    return {
        "preset": plan.preset,
        "seed": plan.seed,
        "participants": len(set(data.participants)),
        "runs": len(data.runs),
        "steps": steps,
        "seconds": {stage: round(value, 1) for stage, value in spent.items()},
        "versions": {
            "fmrisynth": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def training_records(folders: TrainingFolders) -> dict[str, Path]:
    """Find logs and curves of the two trainings, by their names in the model directory.

    Only the first of several processes has written them.
    """
    records = {}
    for stage, folder in folders._asdict().items():
        for name in (LOG_NAME, CURVES_NAME):
            stem, _, suffix = name.partition(".")
            if (folder / name).is_file():
                records[f"{stem}-{stage}.{suffix}"] = folder / name
    return records


def _last_row(path: Path) -> dict[str, str] | None:
    """Read the last row of a training's log; None where there is none."""
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return rows[-1] if rows else None
