"""Write the truth of a phantom cohort: maps and parameters behind its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmrisynth.phantom import texts
from fmrisynth.phantom.fields import VoxelGrid
from fmrisynth.phantom.files import write_image, write_json, write_table
from fmrisynth.phantom.realistic import RealisticParticipant
from fmrisynth.phantom.regional import RegionalResponse
from fmrisynth.phantom.responses import SITES
from fmrisynth.phantom.simulation import Participant, Population, Session

__all__ = [
    "participant_truth",
    "sites_table",
    "write_maps",
    "write_participant_truth",
    "write_population_truth",
    "write_run_truth",
    "write_sites_truth",
]

_MAP_STEP = 0.002  # percent signal change per stored step of the maps


def participant_truth(participant: Participant) -> dict[str, Any]:
    """Return the parameters of one participant for the tables."""
    mixing = participant.connectivity.mixing
    truth: dict[str, Any] = {
        "response_latency": round(participant.response.latency, 4),
        "response_gain": round(float(participant.response.gain.mean()), 4),
        "noise_level": round(participant.connectivity.level, 4),
        "connectivity": (mixing @ mixing.T).round(4).tolist(),
    }
    if isinstance(participant, RealisticParticipant):
        truth["noise_level"] = round(participant.physiology.level, 4)
        for number, trait in enumerate(participant.traits, start=1):
            truth[f"trait_{number}"] = round(float(trait), 4)
        for name, value in asdict(participant.physiology).items():
            if name != "level":
                truth[name] = round(value, 4)
    return truth


def sites_table(response: RegionalResponse) -> pd.DataFrame:
    """Return the haemodynamic response and the place of each site as a table."""
    table = pd.DataFrame(
        {
            "site": list(SITES),
            "delay": response.latency + response.delay,
            "dispersion": response.dispersion,
            "undershoot": response.undershoot,
            **dict(zip(("shift_x", "shift_y", "shift_z"), response.displacement, strict=True)),
        }
    )
    return table.round(4)


def write_maps(path: Path, maps: np.ndarray, grid: VoxelGrid, description: str) -> None:
    """Write maps in percent, (Z, Y, X) or (C, Z, Y, X), creating their folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.rint(maps / _MAP_STEP).astype(np.int16)
    write_image(path, steps, grid, description=description, slope=_MAP_STEP, t_r=1.0)


def write_participant_truth(
    folder: Path, population: Population, label: str, session: Session
) -> None:
    """Write a participant's activation maps as they lie in one phase-encoding direction."""
    grid = population.grid
    maps = np.zeros((len(session.maps), int(np.prod(grid.shape))), np.float32)
    maps[:, session.head.index] = session.maps * session.head.mask
    stem = f"sub-{label}_dir-{session.direction}_desc-amplitude"
    write_maps(
        folder / texts.TRUTH / f"sub-{label}" / f"{stem}.nii.gz",
        maps.reshape(-1, *grid.shape[::-1]),
        grid,
        "percent signal change by condition, 4th axis",
    )


def write_sites_truth(folder: Path, label: str, participant: Participant) -> None:
    """Write the table of a participant's sites, where they have haemodynamics of their own."""
    if isinstance(participant, RealisticParticipant):
        name = f"sub-{label}_desc-sites.tsv"
        write_table(folder / texts.TRUTH / f"sub-{label}" / name, sites_table(participant.regional))


def write_run_truth(folder: Path, label: str, stem: str, courses: pd.DataFrame | None) -> None:
    """Write what moved, breathed and changed at each volume of a run, where it is known."""
    if courses is not None:
        name = f"{stem}_desc-courses_timeseries.tsv"
        write_table(folder / texts.TRUTH / f"sub-{label}" / name, courses)


def write_population_truth(
    folder: Path, population: Population, records: Sequence[Mapping[str, Any]]
) -> None:
    """Write what all participants share, and the tables of what they do not."""
    truth, grid = folder / texts.TRUTH, population.grid
    for (task, trial_type), activation in zip(population.conditions, population.maps, strict=True):
        write_maps(
            truth / "group" / f"task-{task}_cond-{trial_type}_desc-activation.nii.gz",
            activation,
            grid,
            "percent signal change, population",
        )
    write_maps(
        truth / "group" / "desc-networks.nii.gz",
        population.networks,
        grid,
        "network loadings, peak 1, 4th axis",
    )
    conditions = pd.DataFrame(population.conditions, columns=["task", "trial_type"])
    conditions.insert(0, "index", np.arange(len(conditions)))
    conditions["peak"] = np.abs(population.maps).max(axis=(1, 2, 3)).round(4)
    write_table(truth / "conditions.tsv", conditions)
    table = pd.DataFrame(records)
    columns = [name for name in table if name not in ("age", "sex", "connectivity")]
    write_table(truth / "participants_truth.tsv", table[columns])
    write_json(
        truth / "connectivity.json",
        dict(zip(table["participant_id"], table["connectivity"], strict=True)),
    )
    write_json(truth / "config.json", population.config.to_json())
    texts.write_truth_texts(folder, population.config)
