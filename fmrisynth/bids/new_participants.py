"""Describe runs of participants who do not exist, after the design of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fmrisynth.bids.dataset import Dataset, Run, on_most_common_grid
from fmrisynth.bids.names import compose_name
from fmrisynth.errors import UsageError
from fmrisynth.runtime.randomness import keyed_generator

__all__ = ["new_runs"]


def new_runs(dataset: Dataset, training: Sequence[str], count: int, seed: int) -> tuple[Run, ...]:
    """Describe the runs of new participants, ``sub-synth0001`` and so on.

    Each new participant does the sessions, tasks and runs of a training participant of the
    dataset, with its number of volumes and its events; everybody's turn comes before anybody's
    second. Grid and resolution are those of most runs. Nothing else is taken from a participant:
    neither image nor mask nor confounds.

    Parameters
    ----------
    dataset : Dataset
        Whose design is followed.
    training : sequence of str
        Participants that the model was trained on; where the dataset has none of them, the
        design of all its participants is followed.
    count : int
        Number of new participants. More of them leave those that there are as they are.
    seed : int
        Seed of whose design each follows.

    Raises
    ------
    UsageError
        A label is that of a participant of the dataset.
    """
    labels = [f"synth{number:04d}" for number in range(1, count + 1)]
    _require_free(labels, dataset)
    by_participant: dict[str, list[Run]] = {}
    for run in dataset.runs:
        by_participant.setdefault(run.participant, []).append(run)
    models = [p for p in sorted(by_participant) if p in training] or sorted(by_participant)
    placed = on_most_common_grid(dataset.runs)
    runs: list[Run] = []
    for number, label in enumerate(labels):
        turn, place = divmod(number, len(models))
        order = keyed_generator(seed, "new participants", turn).permutation(len(models))
        runs += [_new(run, label, placed) for run in by_participant[models[order[place]]]]
    return tuple(runs)


def _require_free(labels: Sequence[str], dataset: Dataset) -> None:
    """Refuse labels that participants of the dataset have."""
    there = {run.participant for run in dataset.runs}
    there |= {path.name.removeprefix("sub-") for path in dataset.root.glob("sub-*")}
    if taken := [label for label in labels if label in there]:
        raise UsageError(
            f"--new-participants {len(labels)}: {dataset.root} has a participant sub-{taken[0]} "
            "already, so that a new one could not be told from it. Is this an output of fmrisynth? "
            "Give the dataset that was measured, or rename that participant."
        )


def _new(run: Run, label: str, placed: Run) -> Run:
    """Describe the run of a new participant with the design of a run."""
    entities = {**run.entities, "sub": label}
    described = {
        key: placed.metadata[key]
        for key in ("Resolution", "SpatialReference")
        if key in placed.metadata
    }
    return replace(
        run,
        entities=entities,
        bold=Path(compose_name(entities, "bold", ".nii.gz")),
        mask=None,
        confounds=None,
        siblings=(),
        shape=placed.shape,
        affine=placed.affine,
        resolution=placed.resolution,
        metadata={**run.metadata, **described},
        new=True,
    )
