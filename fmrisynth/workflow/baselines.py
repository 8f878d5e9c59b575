"""Write the runs of the baselines that the group level compares with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fmrisynth.baselines import BASELINES
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.derivatives import find_synthetic_runs
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.errors import DataError
from fmrisynth.model.model import Model
from fmrisynth.runtime.devices import make_fabric
from fmrisynth.runtime.workers import Map
from fmrisynth.synthesis.runs import SynthesisPlan, write_synthetic_runs
from fmrisynth.workflow.settings import Settings
from fmrisynth.workflow.words import STATISTICS_ONLY

__all__ = ["write_baselines", "write_statistics_only"]

log = logging.getLogger(__name__)


def write_baselines(
    names: Sequence[str],
    training: Sequence[Run],
    imitated: Sequence[Run],
    scratch: Path,
    high_pass: float,
    seed: int,
    each: Map = map,
) -> dict[str, tuple[Run, ...]]:
    """Write the synthetic runs of some baselines.

    Parameters
    ----------
    names : sequence of str
        Names of `fmrisynth.baselines.BASELINES`.
    training, imitated : sequence of Run
        Real runs to learn from, and real runs whose design is followed.
    scratch : pathlib.Path
        Folder in which each baseline writes a folder of its own.
    high_pass : float
        Cut-off of the high-pass filter (Hz).
    seed : int
        Seed of the noise.
    each : Map
        Reads the training runs, and writes the simulated ones.

    Returns
    -------
    dict
        Name → synthetic runs.
    """
    written = {}
    for name in names:
        arguments = (scratch / name, high_pass, seed, each)
        try:
            written[name] = BASELINES[name](training, imitated, *arguments)
        except DataError as error:  # a run is damaged: go on without it
            log.warning("%s: %s; leaving out what cannot be read", name, error)
            training, imitated = _readable(training), _readable(imitated)
            written[name] = BASELINES[name](training, imitated, *arguments)
    return written


def write_statistics_only(
    settings: Settings, dataset: Dataset, imitated: Sequence[Run], scratch: Path
) -> tuple[Run, ...] | None:
    """Write synthetic runs of the model with its network switched off.

    All else is as in the output that is evaluated, so that a comparison of the two shows
    what the network adds.

    Parameters
    ----------
    settings : Settings
        Model, sampling, seed, device.
    dataset : Dataset
        Other runs of the participants, which give the noise levels.
    imitated : sequence of Run
        Real runs whose design is followed.
    scratch : pathlib.Path
        Folder in which the runs are written; finished ones are kept.

    Returns
    -------
    tuple of Run or None
        None for a network that validation participants gave no say: its runs are these.
    """
    model = Model.load(settings.model_path)
    if model.denoiser.closed:
        return None
    plan = SynthesisPlan(
        out=scratch / STATISTICS_ONLY,
        sampling=replace(settings.sampling(model.info.config.sampling), backbone=False),
        n_samples=1,
        seed=settings.seed,
        sources={},
        siblings=dataset.runs,
        individuals=settings.individuals,
        carrier=settings.carrier,
        work_dir=settings.work_path,
    )
    fabric = make_fabric(settings.device, settings.precision, settings.seed)
    for path, reason in write_synthetic_runs(plan, model, imitated, fabric).items():
        log.warning("%s: %s: %s", STATISTICS_ONLY, path.name, reason)
    return find_synthetic_runs(plan.out)


def _readable(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose images and events can be read."""
    readable = []
    for run in runs:
        with contextlib.suppress(DataError):
            load_bold(run)
            read_events(run.events, duration=run.duration)
            readable.append(run)
    return readable
