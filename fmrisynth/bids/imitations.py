"""Find runs that another program wrote, by the names of the real runs that they imitate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.headers import read_header, require_bold
from fmrisynth.bids.names import comparable, parse_name
from fmrisynth.errors import DataError

__all__ = ["find_imitations"]

_OF_THE_SPACE = ("space", "cohort", "res", "desc")
"""Entities that may differ from those of the real run."""


def find_imitations(root: Path, real: Sequence[Run], problems: dict[Path, str]) -> tuple[Run, ...]:
    """Find images that are named like real runs.

    An image has the entities of its real run; ``space-``, ``res-`` and ``desc-`` may differ.
    Events, repetition time and, on the same grid, the mask are those of the real run, so that
    a program needs to write nothing but images. Where a folder holds several images of one
    run, the first by name is taken.

    Parameters
    ----------
    root : Path
        Folder with ``sub-<label>[/ses-<label>]/func`` as in BIDS.
    real : sequence of Run
        Real runs.
    problems : dict
        Receives images that cannot be read or have another length, and the reason.

    Returns
    -------
    tuple of Run
        In the order of the real runs; those without an image are left out.
    """
    found: dict[tuple[tuple[str, str], ...], Path] = {}
    for participant in dict.fromkeys(run.participant for run in real):
        for image, key in _images(root / f"sub-{participant}"):
            found.setdefault(key, image)
    runs = []
    for run in real:
        path = found.get(_key(run.entities))
        if path is None:
            continue
        try:
            runs.append(_like(run, path))
        except DataError as error:
            problems[path] = str(error)
    return tuple(runs)


def _images(folder: Path) -> Iterator[tuple[Path, tuple[tuple[str, str], ...]]]:
    """Yield the BOLD images of a participant with what tells their runs apart."""
    for path in sorted([*folder.glob("func/*_bold.nii*"), *folder.glob("ses-*/func/*_bold.nii*")]):
        try:
            entities = parse_name(path.name).entities
        except ValueError:
            continue
        yield path, _key({k: v for k, v in entities.items() if k not in _OF_THE_SPACE})


def _key(entities: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(comparable(entities).items()))


def _like(run: Run, path: Path) -> Run:
    """Describe an image as a repetition of a real run."""
    header = read_header(path)
    require_bold(header, path)
    shape, n_volumes = header.shape[:3], header.shape[3]
    if n_volumes != run.n_volumes:
        raise DataError(
            f"{path} has {n_volumes} volumes, and the run that it is named after has "
            f"{run.n_volumes}; write as many, or name it after another run"
        )
    same_grid = shape == run.shape and np.allclose(header.affine, run.affine, atol=1e-3)
    return replace(
        run,
        bold=path,
        mask=run.mask if same_grid else None,
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        affine=header.affine,
        metadata={},
        confounds=None,
        siblings=(),
    )
