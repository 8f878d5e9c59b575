"""Find what a model learns from: the runs of BIDS_DIR, and those of further datasets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fmrisynth.bids.common_space import require_common_space
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.dataset_files import LearnedDataset
from fmrisynth.bids.identity import DatasetIdentity, identify, label_runs, state_sites
from fmrisynth.bids.locations import check_output_dir, check_work_dir
from fmrisynth.bids.search import find_runs
from fmrisynth.errors import DataError, FmrisynthError, UsageError
from fmrisynth.preprocess.splits import Split, choose_split
from fmrisynth.workflow.settings import Settings

__all__ = ["LearningData", "find_learning_data"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LearningData:
    """Hold what a model learns from, or has learned from.

    Attributes
    ----------
    runs : tuple of Run
        Runs of all datasets, BIDS_DIR's first; those of BIDS_DIR alone where the model is there
        already.
    datasets, further : tuple of DatasetIdentity
        All datasets, in the order in which they were learned, and those other than BIDS_DIR.
    split : Split
        Training and held-out participants of all datasets.
    own_split : Split
        The same of BIDS_DIR, by its own labels.
    roots : mapping of str to pathlib.Path
        Folders of the further datasets that this call names, by their names.
    """

    runs: tuple[Run, ...]
    datasets: tuple[DatasetIdentity, ...]
    further: tuple[DatasetIdentity, ...]
    split: Split
    own_split: Split
    roots: Mapping[str, Path]

    @property
    def described(self) -> tuple[LearnedDataset, ...]:
        """The further datasets, for the description of the output."""
        return tuple(
            LearnedDataset(known.name, known.title, known.doi, self.roots.get(known.name))
            for known in self.further
        )


def find_learning_data(settings: Settings, dataset: Dataset) -> LearningData:
    """Find the runs to learn from; where there is a model, say what it has learned from.

    Parameters
    ----------
    settings : Settings
        Further datasets, and which of their runs to use.
    dataset : Dataset
        All runs of BIDS_DIR.

    Raises
    ------
    FmrisynthError
        A further dataset cannot be used, is in another space, or is given twice; or the model
        that is there has learned from others.
    """
    if settings.model_path.exists():
        return _of_model(settings, dataset)
    found = {name: _find_further(settings, dataset, name) for name in settings.learn_from}
    datasets = (identify(dataset), *(identify(other, name) for name, other in found.items()))
    _refuse_twins(datasets, [dataset.root, *(other.root for other in found.values())])
    runs = dataset.runs
    if found:
        runs = state_sites(runs, datasets[0])
        for known, other in zip(datasets[1:], found.values(), strict=True):
            runs += label_runs(state_sites(other.runs, known), known.name)
            log.info("learning from %d runs of %s, too", len(other.runs), other.root)
    share = settings.config.held_out_share
    split = choose_split((run.participant for run in runs), share, settings.seed)
    roots = {name: other.root for name, other in found.items()}
    return LearningData(runs, datasets, datasets[1:], split, split.within(""), roots)


def _of_model(settings: Settings, dataset: Dataset) -> LearningData:
    """Say what the model that is there has learned from."""
    from fmrisynth.model.info import read_info  # brings torch, which a dry run can do without

    info = read_info(settings.model_path)
    names = {known.name for known in info.datasets[1:]}
    if settings.learn_from and names != {*settings.learn_from}:
        learned = ", ".join(sorted(names)) or "no further dataset"
        raise UsageError(
            f"--learn-from {' '.join(settings.learn_from)}: there is a model in "
            f"{settings.model_path} already, which has learned from {learned}. Leave the option "
            "out to use it, or name another output directory to train another one."
        )
    roots = {name: path.resolve() for name, path in settings.learn_from.items()}
    own = info.recognise(dataset)
    further = tuple(known for known in info.datasets if known != own)
    own_split = info.known_as(own).split
    return LearningData(dataset.runs, info.datasets, further, info.split, own_split, roots)


def _find_further(settings: Settings, dataset: Dataset, name: str) -> Dataset:
    """Find the runs of a further dataset in the space of BIDS_DIR."""
    root, first = settings.learn_from[name], dataset.runs[0]
    option = f"--learn-from {name}={root}"
    check_output_dir(root, settings.output_dir)
    check_work_dir(root, settings.work_path)
    selection = replace(settings.selection, participants=(), sessions=(), space=first.space_name)
    try:
        found = find_runs(
            root,
            selection=selection,
            database_dir=settings.database_dir,
            use_raw=settings.use_raw,
        )
    except FmrisynthError as error:
        spaces = f" All datasets have to be in one space, here {first.space_name}."
        needed = spaces if "in the space" in str(error) else ""
        raise type(error)(f"{option}: {error}{needed}") from None
    other = found.runs[0]
    if other.space_name != first.space_name:
        raise DataError(
            f"{option}: its images are in the space {other.space_name}, as {other.bold.name}, and "
            f"those of {dataset.root} have no space label. All datasets have to be in one space; "
            "give preprocessed images of both (fMRIPrep: --output-spaces MNI152NLin2009cAsym)."
        )
    require_common_space([first, other])
    return found


def _refuse_twins(datasets: Sequence[DatasetIdentity], roots: Sequence[Path]) -> None:
    """Refuse datasets that share participants: some would be learned from and held out."""
    for index, (known, root) in enumerate(zip(datasets, roots, strict=True)):
        for earlier, other in zip(datasets[:index], roots[:index], strict=True):
            if root == other or {*known.images} & {*earlier.images}:
                raise UsageError(
                    f"--learn-from {known.name}={root}: it has participants of {other}, who would "
                    "be learned from and held out at once. Name each dataset once."
                )
