"""Describe a model apart from its weights, and read its config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fmrisynth import __version__
from fmrisynth.bids.dataset import Dataset, Run
from fmrisynth.bids.identity import (
    DatasetIdentity,
    identify,
    match_dataset,
    read_identities,
    state_sites,
)
from fmrisynth.config.codec import from_json
from fmrisynth.config.model import ModelConfig
from fmrisynth.errors import ModelError
from fmrisynth.model.denoiser.conditioning import Vocabulary
from fmrisynth.model.weights import hash_json, read_json
from fmrisynth.preprocess.splits import Split

__all__ = ["FORMAT", "ModelInfo", "read_info", "read_lattice"]

FORMAT = 7


@dataclass(frozen=True)
class ModelInfo:
    """Describe a model apart from its weights, as config.json does.

    Attributes
    ----------
    config : ModelConfig
        Settings.
    vocabulary : Vocabulary
        Trial types and attributes that the model knows.
    split : Split
        Training and held-out participants.
    scale : float
        Global divisor of the residuals, %.
    space : str or None
        Space of the training runs.
    provenance : mapping
        How the model was trained: preset, seed, participants, runs, steps and seconds
        of each stage, versions.
    digest : str
        Hash of the weights, which names the model in the files it writes; empty
        until the model is saved.
    datasets : tuple of DatasetIdentity
        The datasets that were learned from, BIDS_DIR first; empty where nobody said.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    split: Split
    scale: float
    space: str | None
    provenance: Mapping[str, Any]
    digest: str = ""
    datasets: tuple[DatasetIdentity, ...] = ()

    def recognise(self, dataset: Dataset) -> DatasetIdentity | None:
        """Find a dataset among those that were learned from; None where it is another one."""
        if not self.datasets:  # nobody said which: labels count
            return DatasetIdentity("", "", None, ())
        return match_dataset(self.datasets, identify(dataset))

    def known_as(self, dataset: DatasetIdentity | None) -> ModelInfo:
        """Return the same with the split by a dataset's own labels; another has unseen ones."""
        return replace(self, split=self.split.within(dataset.name if dataset else None))

    def state_sites(self, runs: Sequence[Run], dataset: DatasetIdentity | None) -> tuple[Run, ...]:
        """Give runs that state no site the one under which their dataset was learned, if any."""
        if dataset is None or dataset.site not in self.vocabulary.sites:
            return tuple(runs)
        return state_sites(runs, dataset)


def read_lattice(content: Mapping[str, Any]) -> tuple[tuple[int, int, int], np.ndarray]:
    """Read shape and affine of the model grid from config.json; ValueError where they are wrong."""
    x, y, z = (int(n) for n in content["grid"]["shape"])
    affine = np.array(content["grid"]["affine"], dtype=float)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError("grid.affine is no 4 × 4 matrix")
    return (x, y, z), affine


def read_info(directory: Path) -> ModelInfo:
    """Read config.json alone, without any weights.

    Raises
    ------
    ModelError
        It is missing, from another format, or has unknown or missing settings.
    """
    path = directory / "config.json"
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise ModelError(
            f"{path} has format {content.get('format')!r}, this version of fmrisynth "
            f"({__version__}) reads format {FORMAT}; train the model again."
        )
    expected = {"config", "vocabulary", "split", "scale", "space", "grid", "provenance", "hashes"}
    if missing := sorted(expected - content.keys()):
        raise ModelError(f"{path} lacks {', '.join(missing)}; the model is damaged.")
    try:
        vocabulary = Vocabulary.from_json(content["vocabulary"])
        scale = float(content["scale"])
        read_lattice(content)
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale is {scale}")
        if not (isinstance(content["hashes"], dict) and isinstance(content["provenance"], dict)):
            raise TypeError("hashes or provenance is no object")
        if not isinstance(content["space"], str | None):
            raise TypeError("space is no text")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{path} is damaged: {type(error).__name__}: {error}. Copy the model again."
        ) from None
    return ModelInfo(
        config=from_json(ModelConfig, content["config"], f"{path}: config"),
        vocabulary=vocabulary,
        split=from_json(Split, content["split"], f"{path}: split"),
        scale=scale,
        space=content["space"],
        provenance=content["provenance"],
        digest=hash_json(content["hashes"])[:16],
        datasets=read_identities(content, str(path)),
    )
