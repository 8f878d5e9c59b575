"""Find the runs of a call."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.locations import check_output_dir, check_work_dir
from fmrisynth.bids.new_participants import new_runs
from fmrisynth.bids.search import find_runs
from fmrisynth.bids.selection import require_labels
from fmrisynth.errors import ModelError, UsageError
from fmrisynth.preprocess.splits import Split
from fmrisynth.workflow.settings import Settings

__all__ = [
    "check_written",
    "find_dataset",
    "participants_of",
    "require_space",
    "runs_to_write",
    "select_runs",
]

log = logging.getLogger(__name__)


def find_dataset(settings: Settings) -> Dataset:
    """Find the runs of all participants, since a model learns from all of them.

    Raises
    ------
    FmrisynthError
        The dataset cannot be used, no run is left by the filters, or an output would lie in
        the input.
    """
    check_output_dir(settings.bids_dir, settings.output_dir, settings.derivatives.values())
    check_work_dir(settings.bids_dir, settings.work_path)
    dataset = find_runs(
        settings.bids_dir,
        derivatives=settings.derivatives,
        selection=replace(settings.selection, participants=()),
        database_dir=settings.database_dir,
        use_raw=settings.use_raw,
    )
    n_participants = len(participants_of(dataset.runs))
    log.info("found %d runs of %d participants", len(dataset.runs), n_participants)
    return dataset


def participants_of(runs: Iterable[Run]) -> list[str]:
    """Return the sorted participant labels of runs."""
    return sorted({run.participant for run in runs})


def require_space(space: str | None, dataset: Dataset) -> None:
    """Refuse a dataset in another space than the model's.

    Images without a space label are taken for those of the model, with a warning,
    since nothing says what space they lie in.

    Parameters
    ----------
    space : str or None
        Space of the runs that the model was trained on.
    dataset : Dataset
        Runs to write or to compare.

    Raises
    ------
    ModelError
        Both are known and differ.
    """
    run = dataset.runs[0]
    if run.space_name == space:
        return
    if space is not None and run.space_name is not None:
        raise ModelError(
            f"the model was trained on images in the space {space}, and those of {dataset.root} "
            f"are in {run.space_name}, as {run.bold.name}. Choose images in the model's space "
            "with --space, or train a model on these."
        )
    log.warning(
        "the model was trained on images in %s, and those of %s are in %s; they are taken for one "
        "space", space or "a space without a label", dataset.root,
        run.space_name or "a space without a label",
    )  # fmt: skip


def check_written(settings: Settings) -> None:
    """Refuse what cannot be written together, before anything is read.

    Raises
    ------
    UsageError
        New participants are asked for together with others, or images that are nobody's with
        the raw layout.
    """
    if settings.new_participants is not None:
        option = f"--new-participants {settings.new_participants}"
        if settings.participants:
            raise UsageError(
                f"{option} with --participant-label: new participants are nobody of the dataset, "
                "and are written instead of its participants. Leave out one of the two."
            )
        if settings.train_only:
            raise UsageError(
                f"{option} with --train-only, which writes no runs. Leave out one of the two."
            )
    elif settings.carrier in (None, "own"):
        return
    else:
        option = f"--carrier {settings.carrier}"
    if settings.layout == "raw":
        raise UsageError(
            f"{option} with --output-layout raw: fMRIPrep needs a T1w image, and there is none but "
            "that of a participant of the dataset. Use --output-layout derivatives or fmriprep."
        )


def runs_to_write(settings: Settings, dataset: Dataset, split: Split) -> tuple[Run, ...]:
    """Return the runs that synthetic ones are asked for: of participants, or of new ones.

    Parameters
    ----------
    settings : Settings
        Participants, or number of new ones.
    dataset : Dataset
        All runs.
    split : Split
        Training and held-out participants of the dataset, by its own labels.

    Raises
    ------
    NoMatchError
        A participant has no run.
    UsageError
        The label of a new participant is taken.
    """
    if settings.new_participants is None:
        return select_runs(dataset, settings.selection.participants)
    return new_runs(dataset, split.training, settings.new_participants, settings.seed)


def select_runs(dataset: Dataset, participants: tuple[str, ...]) -> tuple[Run, ...]:
    """Return the runs of some participants; of all if none is named.

    Raises
    ------
    NoMatchError
        A participant has no run; the message lists those who have.
    """
    if not participants:
        return dataset.runs
    require_labels("sub", participants, participants_of(dataset.runs), dataset.root)
    return tuple(run for run in dataset.runs if run.participant in participants)
