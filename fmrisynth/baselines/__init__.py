"""Baselines are the generators that the model must beat: what a user could have written instead.

In come real runs, out go simulated runs as files; `BASELINES` names the writers.
They import the model's noise and what lies below it; their own libraries load when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from fmrisynth.baselines.writing import Simulate, write_simulated_runs
from fmrisynth.bids.dataset import Run
from fmrisynth.bids.synthetic_sidecars import NOISE_LEVEL_KEY, OWN_RUN

__all__ = ["BASELINES", "Writer"]

Writer = Callable[[Sequence[Run], Sequence[Run], Path, float, int], tuple[Run, ...]]
"""From the training runs, the runs to imitate, a scratch directory in which finished runs are
kept, the highest drift frequency (Hz) and a seed to the simulated runs, one for each imitated."""


def _group_glm(
    training: Sequence[Run], imitated: Sequence[Run], out: Path, high_pass: float, seed: int
) -> tuple[Run, ...]:
    from fmrisynth.baselines.group_glm import fit_group_glm, simulate

    def fit() -> Simulate:
        return partial(simulate, fit_group_glm(training, high_pass, seed))

    level = {NOISE_LEVEL_KEY: OWN_RUN}
    return write_simulated_runs("group-glm", fit, imitated, out, seed, level)


def _fmrisim(
    training: Sequence[Run], imitated: Sequence[Run], out: Path, high_pass: float, seed: int
) -> tuple[Run, ...]:
    from fmrisynth.baselines.fmrisim import fit_fmrisim, simulate

    def fit() -> Simulate:
        return partial(simulate, fit_fmrisim(training, high_pass, seed))

    return write_simulated_runs("fmrisim", fit, imitated, out, seed)


BASELINES: Mapping[str, Writer] = MappingProxyType({"group-glm": _group_glm, "fmrisim": _fmrisim})
"""Writers by the names that the command line takes."""
