"""Baselines are the generators that the model must beat: what a user could have written instead.

In come real runs, out go simulated runs as files; `BASELINES` names the writers.
They import the model's noise and what lies below it; their own libraries load when they are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from fmrisynth.baselines.writing import Simulate, write_simulated_runs
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.synthetic_sidecars import NOISE_LEVEL_KEY, OWN_RUN
from fmrisynth.runtime.workers import Map

__all__ = ["BASELINES", "Writer"]


class Writer(Protocol):
    """Write the runs of a baseline."""

    def __call__(
        self,
        training: Sequence[Run],
        imitated: Sequence[Run],
        out: Path,
        high_pass: float,
        seed: int,
        each: Map = map,
    ) -> tuple[Run, ...]:
        """Return the simulated runs, one for each imitated.

        Parameters
        ----------
        training, imitated : sequence of Run
            Real runs to learn from, and real runs whose design is followed.
        out : pathlib.Path
            Scratch directory in which finished runs are kept.
        high_pass : float
            Highest drift frequency, Hz.
        seed : int
            Of all noise.
        each : Map
            Reads the training runs, and writes the simulated ones.
        """
        ...


def _group_glm(
    training: Sequence[Run],
    imitated: Sequence[Run],
    out: Path,
    high_pass: float,
    seed: int,
    each: Map = map,
) -> tuple[Run, ...]:
    from fmrisynth.baselines.group_glm import fit_group_glm, simulate

    def fit() -> Simulate:
        return partial(simulate, fit_group_glm(training, high_pass, seed, each))

    level = {NOISE_LEVEL_KEY: OWN_RUN}
    return write_simulated_runs("group-glm", fit, imitated, out, seed, level, each)


def _fmrisim(
    training: Sequence[Run],
    imitated: Sequence[Run],
    out: Path,
    high_pass: float,
    seed: int,
    each: Map = map,
) -> tuple[Run, ...]:
    from fmrisynth.baselines.fmrisim import fit_fmrisim, simulate

    def fit() -> Simulate:
        return partial(simulate, fit_fmrisim(training, high_pass, seed, each))

    return write_simulated_runs("fmrisim", fit, imitated, out, seed, each=each)


BASELINES: Mapping[str, Writer] = MappingProxyType({"group-glm": _group_glm, "fmrisim": _fmrisim})
"""Writers by the names that the command line takes."""
