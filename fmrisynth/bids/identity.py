"""Tell datasets apart, so that participants of several datasets are not taken for one another.

`sub-01` exists in nearly every dataset. A model therefore keeps what identifies each dataset that
it has learned from, and names participants of further datasets with the dataset's name and a
colon, ``leipzig:01``, which no label of BIDS has.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fmrisynth.bids.dataset import UNKNOWN, Dataset, Run
from fmrisynth.bids.sidecars import read_json
from fmrisynth.config.codec import from_json
from fmrisynth.errors import DataError, ModelError

__all__ = [
    "SEPARATOR",
    "DatasetIdentity",
    "identify",
    "label_runs",
    "match_dataset",
    "read_identities",
    "state_sites",
]

SEPARATOR = ":"
"""Stands between the name of a further dataset and the label of its participant."""

_SAMPLE = 16384  # bytes from the middle of an image, which are nobody else's

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetIdentity:
    """Identify a dataset that a model has learned from, without any path.

    Attributes
    ----------
    name : str
        What its participants' labels begin with; empty for BIDS_DIR.
    title : str
        Name of its dataset_description.json.
    doi : str or None
        Its DatasetDOI.
    images : tuple of str
        Hash of a part of the first image of each participant, session and task, so that the
        dataset is known again when a call uses some of its sessions or tasks.
    """

    name: str
    title: str
    doi: str | None
    images: tuple[str, ...]

    @property
    def site(self) -> str:
        """Site of the runs that state none."""
        return self.name or self.title


def identify(dataset: Dataset, name: str = "") -> DatasetIdentity:
    """Identify a dataset by its name, its DOI and its images.

    Parameters
    ----------
    dataset : Dataset
        All runs that are found in it.
    name : str
        Name of a further dataset; empty for BIDS_DIR.
    """
    try:
        described = read_json(dataset.root / "dataset_description.json")
    except DataError:  # of a dataset of which the validator was not asked
        described = {}
    doi = described.get("DatasetDOI")
    return DatasetIdentity(
        name=name,
        title=str(described.get("Name") or dataset.root.name),
        doi=doi if isinstance(doi, str) and doi else None,
        images=_image_hashes(dataset.runs),
    )


def read_identities(content: Mapping[str, Any], source: str) -> tuple[DatasetIdentity, ...]:
    """Read the datasets that the description of a model names; one of before names none.

    Raises
    ------
    ModelError
        They are no list of identities.
    """
    items = content.get("datasets", [])
    if not isinstance(items, list):
        raise ModelError(f"{source}: datasets is {items!r}, expected a list.")
    return tuple(from_json(DatasetIdentity, item, f"{source}: datasets") for item in items)


def _image_hashes(runs: Sequence[Run]) -> tuple[str, ...]:
    """Hash a part of some images; those that cannot be read have none."""
    first: dict[tuple[str | None, ...], Path] = {}
    for run in runs:
        first.setdefault((run.participant, run.session, run.task), run.bold)
    hashes = []
    for path in first.values():
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:
                stream.seek(max(0, (size - _SAMPLE) // 2))
                content = stream.read(_SAMPLE)
        except OSError:
            continue
        hashes.append(hashlib.sha256(f"{size}\n".encode() + content).hexdigest()[:16])
    return tuple(sorted(hashes))


def match_dataset(
    learned: Sequence[DatasetIdentity], found: DatasetIdentity
) -> DatasetIdentity | None:
    """Find a dataset among those that a model has learned from; None where it is another one.

    Equal images decide; else an equal DOI or an equal name, since a dataset may have been
    preprocessed anew. In doubt a participant counts as learned from.
    """
    images = Counter({known: len({*known.images} & {*found.images}) for known in learned})
    if images and (most := images.most_common(1)[0])[1]:
        return most[0]
    for known in learned:
        if found.doi is not None and known.doi == found.doi:
            return known
    for known in learned:
        if known.title == found.title:
            log.warning(
                "none of the images is one that the model has learned from, but the dataset is "
                "called %r like one that it has: participants count as learned from by their "
                "labels. If it is another dataset, give it another Name in "
                "dataset_description.json.",
                found.title,
            )
            return known
    return None


def label_runs(runs: Iterable[Run], name: str) -> tuple[Run, ...]:
    """Name the participants of a further dataset so that no other dataset has their labels."""
    return tuple(
        replace(run, entities={**run.entities, "sub": f"{name}{SEPARATOR}{run.participant}"})
        for run in runs
    )


def state_sites(runs: Iterable[Run], identity: DatasetIdentity) -> tuple[Run, ...]:
    """Give the runs that state no site the name of their dataset as one."""
    return tuple(replace(run, site=identity.site) if run.site == UNKNOWN else run for run in runs)
