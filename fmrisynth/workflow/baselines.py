"""Write the runs of the baselines that the group level compares with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from fmrisynth.baselines import BASELINES
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.images import load_bold
from fmrisynth.errors import DataError

__all__ = ["write_baselines"]

log = logging.getLogger(__name__)


def write_baselines(
    names: Sequence[str],
    training: Sequence[Run],
    imitated: Sequence[Run],
    scratch: Path,
    high_pass: float,
    seed: int,
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

    Returns
    -------
    dict
        Name → synthetic runs.
    """
    written = {}
    for name in names:
        arguments = (scratch / name, high_pass, seed)
        try:
            written[name] = BASELINES[name](training, imitated, *arguments)
        except DataError as error:  # a run is damaged: find out which, and go on with the others
            log.warning("%s: %s; leaving out what cannot be read", name, error)
            training, imitated = _readable(training), _readable(imitated)
            written[name] = BASELINES[name](training, imitated, *arguments)
    return written


def _readable(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose images and events can be read."""
    readable = []
    for run in runs:
        with contextlib.suppress(DataError):
            load_bold(run)
            read_events(run.events, duration=run.duration)
            readable.append(run)
    return readable
