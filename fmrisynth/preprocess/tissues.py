"""Locate cerebrospinal fluid and white matter on the grid of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache

import nibabel as nib
import numpy as np
from scipy import ndimage

from fmrisynth.bids.dataset import BoldRun
from fmrisynth.bids.images import load_volume
from fmrisynth.bids.tissues import find_tissue_maps
from fmrisynth.errors import DataError
from fmrisynth.preprocess.grid import resample

__all__ = ["template_tissue_masks", "tissue_masks"]

log = logging.getLogger(__name__)

CERTAIN = 0.9  # probability of a tissue, from which on a voxel counts
SMALLEST_SHARE = 0.01  # of the brain, that a tissue takes at least
VENTRICLE_DEPTH = 20.0  # mm below the surface of the template's brain
SHARED = 0.7  # of the run's brain that the template has to cover


def tissue_masks(run: BoldRun, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Choose the voxels of a run that are surely CSF and white matter.

    They come from the participant's own probability maps, else from the MNI152
    template (nilearn's, ICBM 2009a symmetric) where the run's brain coincides with it.
    On coarse grids no voxel may be certain; the most probable ones are taken then.

    Parameters
    ----------
    run : BoldRun
        Space, grid and participant.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels of the run.

    Returns
    -------
    dict of str to ndarray of shape (X, Y, Z), bool
        ``"CSF"`` and ``"WM"``; empty where nothing is known of the tissues.
    """
    own = _own_maps(run)
    return _masks(own, mask) if own else template_tissue_masks(run, mask)


def template_tissue_masks(run: BoldRun, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Choose the voxels of CSF and white matter by the template alone: nobody's tissues.

    Parameters
    ----------
    run : BoldRun
        Space and grid.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels of the run.

    Returns
    -------
    dict of str to ndarray of shape (X, Y, Z), bool
        As `tissue_masks`.
    """
    if run.space is not None and not run.space.startswith("MNI"):
        return {}
    maps = dict(_template_on(np.asarray(run.affine, dtype=float).tobytes(), run.shape))
    covered = maps.pop("brain") & mask
    return _masks(maps, mask) if covered.sum() >= SHARED * mask.sum() else {}


def _masks(maps: Mapping[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    """Choose the voxels by probability maps on the run's grid."""
    masks = {
        tissue: _most_probable(np.where(mask, probability, 0), int(mask.sum()))
        for tissue, probability in maps.items()
    }
    if len(masks) == 2:
        masks["CSF"] = masks["CSF"] & ~masks["WM"]
    return {tissue: chosen for tissue, chosen in masks.items() if chosen.any()}


def _on_run(
    data: np.ndarray, affine: np.ndarray, on: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Bring a probability map onto a run's grid."""
    coarse = np.linalg.norm(on[:3, :3], axis=0) / np.linalg.norm(affine[:3, :3], axis=0)
    # a voxel holds what is around its centre: interpolation alone would take the centre
    smooth = ndimage.gaussian_filter(data.astype(np.float32), np.maximum(coarse - 1, 0) / 2)
    return resample(smooth, affine, on, shape)


def _most_probable(probability: np.ndarray, n_brain: int) -> np.ndarray:
    """Choose voxels above a probability, at least a share of the brain's number."""
    least = max(5, round(SMALLEST_SHARE * n_brain))
    certain = probability >= CERTAIN
    if certain.sum() >= least:
        return certain
    threshold = np.sort(probability, axis=None)[-least]
    return np.asarray(probability >= max(threshold, 0.05))


def _own_maps(run: BoldRun) -> dict[str, np.ndarray]:
    """Read the participant's probability maps onto the run's grid; none where one is unreadable."""
    maps = {}
    for tissue, path in find_tissue_maps(run).items():
        try:
            maps[tissue] = _on_run(*load_volume(path), run.affine, run.shape)
        except DataError as error:
            log.warning("%s: the tissues of the template are used: %s", run.label, error)
            return {}
    return maps


@lru_cache(maxsize=4)  # the runs of a dataset share few grids
def _template_on(affine: bytes, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Bring the template's maps onto a grid."""
    on = np.frombuffer(affine).reshape(4, 4)
    maps = {tissue: _on_run(*_template()[tissue], on, shape) for tissue in ("CSF", "WM")}
    brain, own = _template()["brain"]
    return maps | {"brain": resample(brain.astype(np.float32), own, on, shape, "nearest") > 0}


@lru_cache(maxsize=1)
def _template() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Load brain, ventricles and white matter of the template that nilearn holds."""
    from nilearn import datasets

    def data_of(image: nib.Nifti1Image) -> np.ndarray:
        return np.asarray(image.get_fdata(dtype=np.float32))

    resolution = 2
    brain = datasets.load_mni152_brain_mask(resolution)
    white = data_of(datasets.load_mni152_wm_template(resolution))
    grey = data_of(datasets.load_mni152_gm_template(resolution))
    inside = data_of(brain) > 0
    depth = ndimage.distance_transform_edt(inside, sampling=resolution)
    fluid = np.where(inside, 1 - np.clip(white + grey, 0, 1), 0)
    fluid[depth < VENTRICLE_DEPTH] = 0  # sulci mix with grey matter in voxels of functional images
    affine = np.asarray(brain.affine, dtype=float)
    return {"brain": (inside, affine), "CSF": (fluid, affine), "WM": (white, affine)}
