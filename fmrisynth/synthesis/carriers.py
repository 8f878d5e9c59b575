"""Choose the carrier of a synthetic run, and tell how loud the run is to be.

A synthetic run is as noisy as the participant's other runs are: the noise of the run that it
imitates would make it agree with that run by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.config.model import CARRIERS
from fmrisynth.errors import UsageError
from fmrisynth.model.carriers import MINIMUM_PARTICIPANTS
from fmrisynth.model.model import Model
from fmrisynth.preprocess.carrier import Carrier
from fmrisynth.preprocess.grid import resample

__all__ = ["choose_carrier", "no_carriers", "nobodys_carrier", "noise_sd_of"]

MOSTLY_BRAIN = 0.5  # share of brain in a resampled voxel, from which on its noise counts


def choose_carrier(wanted: str | None, model: Model, *, new: bool = False) -> str:
    """Choose whose mean image, noise level, drift and mask synthetic runs have.

    Parameters
    ----------
    wanted : {"own", "drawn", "group-mean"} or None
        What the user asked for; None for their participant's own, and drawn ones of new
        participants.
    model : Model
        The model.
    new : bool
        Whether the participants are new.

    Raises
    ------
    UsageError
        There is no such choice, new participants are to have their own, or the model has
        learned no carriers.
    """
    if wanted is not None and wanted not in CARRIERS:
        raise UsageError(f"carrier is {wanted!r}; expected {', '.join(CARRIERS)}")
    if new and wanted == "own":
        raise UsageError(
            "--carrier own: new participants have no image of their own. Use --carrier drawn or "
            "group-mean."
        )
    chosen = wanted or ("drawn" if new else "own")
    if chosen != "own" and not bool(model.carriers.present):
        raise no_carriers(chosen, len(model.info.split.training), new=new)
    return chosen


def no_carriers(carrier: str, n_participants: int, *, new: bool) -> UsageError:
    """Say that a model of so few participants makes no carriers."""
    instead = "Use" if new else "Use --carrier own, or"
    return UsageError(
        f"{'--new-participants' if new else f'--carrier {carrier}'}: a model that is trained on "
        f"{n_participants} participant{'s' if n_participants != 1 else ''} has learned no "
        f"carriers, since images of so few people would show them. {instead} a model of "
        f"{MINIMUM_PARTICIPANTS} or more training participants."
    )


def nobodys_carrier(run: Run, wanted: str, model: Model, seeds: tuple[int, int]) -> Carrier:
    """Make the carrier of a run whose own image has no part in it.

    Parameters
    ----------
    run : Run
        Run whose grid, length and TR the carrier gets; its image is not read.
    wanted : {"drawn", "group-mean"}
        Whose mean image, noise level, drift and mask the run gets.
    model : Model
        The model.
    seeds : tuple of int
        Of all that the runs of a participant and sample have in common, and of the run.
    """
    if wanted == "group-mean":
        return model.carriers.typical(model.grid, run)
    high_pass = model.info.config.preprocess.high_pass
    return model.carriers.draw(model.grid, run, high_pass, *seeds)


def noise_sd_of(run: Path, carriers: Mapping[Path, Carrier]) -> np.ndarray:
    """Average the noise of a participant's other runs on the grid of one of them.

    Parameters
    ----------
    run : pathlib.Path
        Image of the run.
    carriers : mapping of pathlib.Path to Carrier
        Of the participant's runs, this one included.

    Returns
    -------
    ndarray of shape (X, Y, Z)
        Temporal standard deviation, %; of the run itself where there is no other.
    """
    own = carriers[run]
    shape = (own.mask.shape[0], own.mask.shape[1], own.mask.shape[2])
    maps = []
    for path, carrier in carriers.items():
        if path == run:
            continue
        same = carrier.mask.shape == shape and np.allclose(carrier.affine, own.affine)
        sd = carrier.noise_sd
        if not same:  # outside of a brain there is no noise level, which is not one of zero
            inside = resample(carrier.mask.astype(np.float32), carrier.affine, own.affine, shape)
            sd = resample(sd, carrier.affine, own.affine, shape) / np.maximum(inside, 1e-3)
            sd = np.where(inside > MOSTLY_BRAIN, sd, 0)
        maps.append(sd)
    if not maps:
        return own.noise_sd
    stacked = np.stack(maps)
    known = (stacked > 0).sum(0)
    # levels vary by factors: of loud and quiet runs the geometric mean is typical
    logs = np.log(np.where(stacked > 0, stacked, 1)).sum(0)
    mean = np.exp(logs / np.maximum(known, 1))
    # the other runs' brains may be smaller
    return np.where(own.mask, np.where(known > 0, mean, own.noise_sd), 0).astype(np.float32)
