"""Bring all sources of a comparison on one grid: their runs, maps and coarse series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fmrisynth.bids.dataset import Run, on_most_common_grid
from fmrisynth.errors import DataError
from fmrisynth.evaluation.cohort.conditions import Conditions, find_conditions, with_contrasts
from fmrisynth.evaluation.cohort.contrasts import Contrast
from fmrisynth.evaluation.cohort.map_table import MapTable
from fmrisynth.evaluation.cohort.maps import (
    build_supervoxel_tables,
    build_tables,
    common_mask,
)
from fmrisynth.evaluation.cohort.roles import REAL, TRAINING
from fmrisynth.evaluation.cohort.samples import Samples
from fmrisynth.evaluation.cohort.sources import ByParticipant, Matched
from fmrisynth.evaluation.cohort.supervoxels import common_supervoxels, supervoxel_samples
from fmrisynth.evaluation.runs.grids import Grid, supervoxels_of
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["Cohort", "build_cohort", "most_common_grid"]


@dataclass(frozen=True)
class Cohort:
    """Hold everything that metrics are computed from.

    Attributes
    ----------
    participants : mapping
        Source → participant → runs.
    runs : mapping
        Source → all of its runs.
    samples : mapping
        Generator → participant → groups of samples of one run.
    grid : Grid
        Where maps lie.
    mask : ndarray of bool of shape (X, Y, Z)
        Voxels that are compared.
    conditions : Conditions
        What is compared.
    tables : mapping
        Source → participants' maps in voxels. Coordinates are shared by the two
        real sources.
    real_beside : mapping
        Generator → the real held-out participants' maps, in the coordinates of
        the generator's.
    supervoxel_tables : mapping
        Source → participants' maps on supervoxels of 12 mm.
    keys : ndarray of int of shape (B, 3)
        Supervoxels that all real runs have.
    folder : pathlib.Path
        Where files lie that memory shall not hold.
    for_training : mapping
        Generator → its runs for training participants, which copying is audited in.
    all_training : bool
        Whether all participants that the generators learned from are here, or a part of them.
    """

    participants: Mapping[str, ByParticipant]
    runs: Mapping[str, Sequence[RunRecord]]
    samples: Mapping[str, Mapping[str, Sequence[Sequence[RunRecord]]]]
    grid: Grid
    mask: np.ndarray
    conditions: Conditions
    tables: Mapping[str, MapTable]
    real_beside: Mapping[str, MapTable]
    supervoxel_tables: Mapping[str, MapTable]
    keys: np.ndarray
    folder: Path
    for_training: Mapping[str, Sequence[RunRecord]] = field(default_factory=dict)
    all_training: bool = True

    @property
    def generators(self) -> tuple[str, ...]:
        """Names of the generators, in order."""
        return tuple(name for name in self.participants if name not in (REAL, TRAINING))

    @property
    def first_with_these_runs(self) -> dict[str, str]:
        """Source → the first source that has the same runs; itself, as a rule.

        A model whose network has no say is its own baseline without a network. Images that are
        the same may have come about in other ways, and are judged by their own.
        """
        first: dict[tuple[int, ...], str] = {}
        return {
            name: first.setdefault(
                tuple(id(record.run) for record in (*runs, *self.for_training.get(name, ()))), name
            )
            for name, runs in self.runs.items()
        }

    @property
    def training(self) -> MapTable | None:
        """Maps of the real training participants, None where there are none."""
        return self.tables[TRAINING] if self.participants[TRAINING] else None

    @property
    def training_supervoxels(self) -> MapTable | None:
        """The same on supervoxels."""
        return self.supervoxel_tables[TRAINING] if self.participants[TRAINING] else None

    def group_maps(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Average participants' maps: source → (C, V) of the conditions, (K, V) of trial types."""
        shown = {name: table for name, table in self.tables.items() if table.participants}
        by_type = {name: table.group_maps() for name, table in shown.items()}
        headline = self.conditions.headline
        return {name: headline.of(maps[None])[0] for name, maps in by_type.items()}, by_type

    def map_samples(self, runs: Sequence[RunRecord]) -> Samples:
        """Effect maps of single runs on the supervoxels."""
        return supervoxel_samples(runs, self.conditions.trial_types, self.keys)

    def unpaired(self, name: str) -> bool:
        """Whether a generator's participants are new, so that none stands beside a real one."""
        return not set(self.participants[name]) <= set(self.participants[REAL])

    def real_rows(self, name: str) -> list[int]:
        """Rows of the real participants whom a generator's are compared with.

        They are the same participants, in the same order, or all of them where it has new ones.
        """
        if self.unpaired(name):
            return list(range(len(self.tables[REAL].participants)))
        return [self.tables[REAL].participants.index(p) for p in self.tables[name].participants]

    def real_runs(self, name: str) -> list[RunRecord]:
        """Real runs of the participants that a generator has runs of; all beside new ones."""
        if self.unpaired(name):
            return list(self.runs[REAL])
        return [r for r in self.runs[REAL] if r.run.participant in self.participants[name]]


def most_common_grid(runs: Sequence[Run]) -> Grid:
    """Take the grid that most runs lie on; the first of several such."""
    first = on_most_common_grid(runs)
    return Grid(first.affine, first.shape)


def build_cohort(
    matched: Matched,
    grid: Grid,
    work_dir: Path,
    contrasts: Sequence[Contrast],
    notices: list[str],
) -> Cohort:
    """Bring the runs of all sources together.

    Parameters
    ----------
    matched : Matched
        Runs by source and participant.
    grid : Grid
        Grid of the records.
    work_dir : Path
        Receives the maps, and becomes the cohort's folder.
    contrasts : sequence of Contrast
        What the user wants to compare beside the conditions.
    notices : list of str
        Is added to.

    Raises
    ------
    DataError
        When the runs' brain masks have no voxel in common.
    UsageError
        When a contrast does not fit the runs.
    """
    participants = matched.participants
    runs = {
        name: [r for rs in source.values() for r in rs] for name, source in participants.items()
    }
    # What is compared where is decided on real runs alone: no generator moves another's numbers.
    real = [*runs[REAL], *runs[TRAINING]]
    mask, note = common_mask(real)
    if not mask.any():
        raise DataError(
            "the brain masks of the runs have no voxel in common; runs to be compared must be in "
            "one space (use --space to choose it)"
        )
    if note:
        notices.append(note[0].upper() + note[1:] + ".")
    generators = [name for name in participants if name not in (REAL, TRAINING)]
    for name in generators:
        notices += _coverage(name, runs[name], mask)
    conditions = with_contrasts(find_conditions(runs[REAL]), contrasts)
    pairs = conditions.trial_types
    spans = build_tables(
        participants,
        pairs,
        mask,
        work_dir / "maps.npy",
        {REAL: (REAL, TRAINING)} | {name: (name, REAL) for name in generators},
    )
    _, average = supervoxels_of(mask, grid.affine)
    return Cohort(
        participants=participants,
        runs=runs,
        samples=matched.samples,
        grid=grid,
        mask=mask,
        conditions=conditions,
        tables=spans[REAL] | {name: spans[name][name] for name in generators},
        real_beside={name: span[REAL] for name, span in spans.items()},
        supervoxel_tables=build_supervoxel_tables(
            participants, pairs, mask, work_dir / "supervoxels.npy", average
        ),
        keys=common_supervoxels(real),
        folder=work_dir,
    )


def _coverage(name: str, records: Sequence[RunRecord], mask: np.ndarray) -> list[str]:
    """Say how much of the mask a generator's runs lack, which counts as no effect there."""
    missing = max(float((mask & ~record.array("mask")).sum() / mask.sum()) for record in records)
    if missing == 1.0:
        raise DataError(
            f"a run of {name!r} has no voxel in the brain of the real runs; runs to be compared "
            "must be in one space (use --space to choose it)"
        )
    if not missing:
        return []
    return [
        f"The masks of the runs of {name} lack up to {max(missing, 0.001):.1%} of the voxels that "
        "are compared; they count as no effect there."
    ]
