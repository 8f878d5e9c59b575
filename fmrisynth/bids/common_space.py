"""Judge by their labels and grids whether images share one space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from fmrisynth.errors import DataError

__all__ = ["require_common_space"]

_ROTATION_TOLERANCE = np.cos(np.deg2rad(1.0))


# Spaces of which every participant, or every session, has one of its own.
_OWN_SPACES = {"t1w", "t2w", "flair", "anat", "individual", "native", "func", "bold", "boldref"}
_OWN_SPACES |= {"orig", "scanner", "sbref", "fsnative", "subject", "meanbold", "epi"}


class Placed(Protocol):
    """An image file with a voxel grid."""

    @property
    def participant(self) -> str:
        """Label of the participant."""

    @property
    def space(self) -> str | None:
        """Label of the space."""

    @property
    def bold(self) -> Path:
        """The image."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""

    @property
    def affine(self) -> np.ndarray:
        """Voxel indices to mm, (4, 4)."""


def require_common_space(runs: Sequence[Placed]) -> None:
    """Refuse images of several participants that do not share one space.

    A space such as T1w is each participant's own. Images without a space label
    are judged by their grids: those resampled to one space have parallel axes and
    overlap; scanner space differs between participants by rotations of a few degrees.

    Raises
    ------
    DataError
        When the images are in several spaces.
    """
    first = runs[0]
    n_participants = len({run.participant for run in runs})
    if first.space is not None:
        if first.space.lower() in _OWN_SPACES and n_participants > 1:
            raise DataError(
                f"the BOLD images are in the space {first.space}, which each of the "
                f"{n_participants} participants has for itself, as in {first.bold}. Give images in "
                "a standard space (fMRIPrep: --output-spaces MNI152NLin2009cAsym)."
            )
        return
    for run in runs[1:]:
        if not (_parallel(first.affine, run.affine) and _overlap(first, run) >= 0.5):
            raise DataError(
                "the BOLD images have no space label and do not lie in one space: the axes or "
                f"fields of view of {first.bold} and {run.bold} differ. Give preprocessed images "
                "in a standard space with --derivatives (fMRIPrep: --output-spaces "
                "MNI152NLin2009cAsym)."
            )


def _parallel(one: np.ndarray, other: np.ndarray) -> bool:
    """Say whether each axis of one grid is parallel, in either direction, to one of the other."""
    axes = [affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in (one, other)]
    cosines = np.abs(axes[0].T @ axes[1])
    return bool((cosines.max(axis=1) >= _ROTATION_TOLERANCE).all())


def _overlap(one: Placed, other: Placed) -> float:
    """Compute the shared volume of two fields of view, as a share of the smaller one."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    boxes = []
    for run in (one, other):
        points = (corners * run.shape - 0.5) @ run.affine[:3, :3].T + run.affine[:3, 3]
        boxes.append((points.min(axis=0), points.max(axis=0)))
    (low_a, high_a), (low_b, high_b) = boxes
    shared = np.clip(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0, None)
    return float(shared.prod() / min((high_a - low_a).prod(), (high_b - low_b).prod()))
