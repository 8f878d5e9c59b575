"""Give every synthetic participant response and noise of its own: inferred, drawn, the group's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fmrisynth.config.model import INDIVIDUALS
from fmrisynth.errors import UsageError
from fmrisynth.model.individuals import IndividualInference
from fmrisynth.model.model import Model
from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.synthesis.run_statistics import RunStatistics

__all__ = ["choose_individuals", "deviation_of", "noise_of"]


def choose_individuals(wanted: str | None, model: Model, *, new: bool = False) -> str:
    """Choose whose responses synthetic runs have.

    Parameters
    ----------
    wanted : {"own", "drawn", "group"} or None
        What the user asked for; None for their own, or drawn ones of new participants, where
        the model can.
    model : Model
        The model.
    new : bool
        Whether the participants are new.

    Raises
    ------
    UsageError
        The model holds no individual differences, but they are asked for, or new participants
        are to have their own.
    """
    if wanted is not None and wanted not in INDIVIDUALS:
        raise UsageError(f"individuals is {wanted!r}; expected {', '.join(INDIVIDUALS)}")
    if new and wanted == "own":
        raise UsageError(
            "--individuals own: new participants have no runs that could tell a response of their "
            "own. Use --individuals drawn or group."
        )
    if model.response.prior.present:
        return wanted or ("drawn" if new else "own")
    if wanted in ("own", "drawn"):
        raise UsageError(
            f"--individuals {wanted}: this model holds no individual differences of the response. "
            "It was trained without a response model (response.kind=none), with "
            "response.individual_fields=0, on fewer than four participants, or on participants "
            "who do not differ measurably. Use --individuals group, or train another model."
        )
    return "group"


def deviation_of(
    run: Path,
    chosen: str,
    statistics: Mapping[Path, RunStatistics],
    inference: IndividualInference | None,
    seed: int,
) -> Tensor | None:
    """Draw the deviation of a participant's response from what anatomy foretells.

    Parameters
    ----------
    run : pathlib.Path
        Image of the run that is imitated, which has no say in it.
    chosen : {"own", "drawn", "group"}
        Whose response the run has.
    statistics : mapping of pathlib.Path to RunStatistics
        Of the participant's runs.
    inference : IndividualInference or None
        Of the model's response; None for the group's.
    seed : int
        Seed of what is uncertain, the same for all runs of a participant and sample.

    Returns
    -------
    Tensor of shape (V, 2, C, x, y, z) or None
        None for no deviation.
    """
    if chosen == "group" or inference is None:
        return None
    others = [s.response for path, s in statistics.items() if path != run]
    known = reduce(add, others) if chosen == "own" and others else None
    generator = torch.Generator().manual_seed(seed)
    return inference.deviation(inference.posterior(known).draw(generator))


def noise_of(
    run: Path,
    chosen: str,
    statistics: Mapping[Path, RunStatistics],
    noise: NoiseModel,
    removed: np.ndarray,
) -> NoiseModel:
    """Infer the noise of a participant from other runs than the one that is imitated.

    Parameters
    ----------
    run, chosen, statistics : pathlib.Path, str, mapping
        As for `deviation_of`.
    noise : NoiseModel
        Of the group, which also draws the networks of participants who are nobody.
    removed : ndarray of shape (N, K)
        Orthonormal: mean and drift, which runs are without.
    """
    if chosen != "own":
        return noise
    others = [s.noise for path, s in statistics.items() if path != run and s.noise is not None]
    return noise.infer(others, removed)
