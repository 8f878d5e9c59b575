"""Baselines are the generators that the model must beat: what a user could have written instead.

In come real runs, out go simulated runs as files; `BASELINES` names the writers.
They import the model's noise and what lies below it; their own libraries load when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

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


Fit = Callable[[Sequence[Run], float, int, Map], Any]


def _group_glm() -> tuple[Fit, Callable[..., Any]]:
    from fmrisynth.baselines.group_glm import fit_group_glm, simulate

    return fit_group_glm, simulate


def _fmrisim() -> tuple[Fit, Callable[..., Any]]:
    from fmrisynth.baselines.fmrisim import fit_fmrisim, simulate

    return fit_fmrisim, simulate


def _writer(
    name: str, load: Callable[[], tuple[Fit, Callable[..., Any]]], **remarks: Any
) -> Writer:
    """Make the writer of a baseline; `load` imports how it is fitted, and how it simulates."""

    def write(
        training: Sequence[Run],
        imitated: Sequence[Run],
        out: Path,
        high_pass: float,
        seed: int,
        each: Map = map,
    ) -> tuple[Run, ...]:
        fit, simulate = load()

        def fitted() -> Simulate:
            return partial(simulate, fit(training, high_pass, seed, each))

        return write_simulated_runs(name, fitted, imitated, out, seed, remarks, each)

    return write


BASELINES: Mapping[str, Writer] = MappingProxyType(
    {
        "group-glm": _writer("group-glm", _group_glm, **{NOISE_LEVEL_KEY: OWN_RUN}),
        "fmrisim": _writer("fmrisim", _fmrisim),
    }
)
"""Writers by the names that the command line takes."""
