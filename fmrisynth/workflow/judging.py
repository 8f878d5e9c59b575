"""Decide by which participants of a dataset a model is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fmrisynth.bids.dataset import Dataset
from fmrisynth.preprocess.splits import Split, choose_split
from fmrisynth.workflow.dataset import participants_of

if TYPE_CHECKING:
    from fmrisynth.model.info import ModelInfo

__all__ = ["judged_by", "recognised"]

FOREIGN_SHARE = 0.5  # of the participants who are judged, where none was learned from
LEAST_PARTED = 4  # participants, fewer of whom are not parted


def recognised(
    info: ModelInfo, dataset: Dataset, seed: int
) -> tuple[ModelInfo, Dataset, Split | None]:
    """Name participants and sites as dataset and model do, and split another dataset.

    Parameters
    ----------
    info : ModelInfo
        Model that wrote the synthetic runs.
    dataset : Dataset
        Real runs.
    seed : int
        Seed of the split of a dataset that the model has not learned from.

    Returns
    -------
    info : ModelInfo
        With the split by the dataset's own labels.
    dataset : Dataset
        With the sites that the model knows.
    foreign : Split or None
        Where the model has learned from nobody of the dataset: who is judged (``held_out``), and
        whose real runs make ceilings and teach the baselines (``training``).
    """
    known = info.recognise(dataset)
    dataset = replace(dataset, runs=info.state_sites(dataset.runs, known))
    foreign = None if known is not None else _split_foreign(dataset, seed)
    return info.known_as(known), dataset, foreign


def _split_foreign(dataset: Dataset, seed: int) -> Split:
    """Part the participants of whom none was learned from; few of them are all judged."""
    participants = participants_of(dataset.runs)
    if len(participants) < LEAST_PARTED:
        return Split((), tuple(participants))
    return choose_split(participants, FOREIGN_SHARE, seed)


def judged_by(foreign: Split, info: ModelInfo) -> str:
    """Say who is judged and who makes the ceilings where the model has learned from nobody."""
    titles = "; ".join(dataset.title for dataset in info.datasets)
    said = (
        f"The model has learned from no participant of this dataset, but from: {titles}. "
        f"{len(foreign.held_out)} participants, drawn at random, are what it is compared with."
    )
    if not foreign.training:
        return said
    return (
        f"{said} The {len(foreign.training)} others stand where training participants would: "
        "ceilings are of them, and baselines have learned from them."
    )
