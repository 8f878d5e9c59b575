"""Take out of noise what places have in common, or what white matter and CSF tell of it.

Legend: N frames, V brain voxels, K regressors.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from fmrisynth.bids.dataset import Run
from fmrisynth.preprocess.tissues import template_tissue_masks, tissue_masks

__all__ = ["out_of_step", "quiet_tissue", "without_physiology"]

log = logging.getLogger(__name__)

EXPLAINED = 0.5  # share of the tissue's variance that is taken for physiology


def out_of_step(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each latent value of (N, C, x, y, z) noise in time, by a random number of frames.

    Spectra and variances stay; what values at different places have in common goes.
    """
    length = len(noise)
    flat = noise.flatten(1)
    shifts = torch.randint(length, (flat.shape[1],), generator=generator).to(noise.device)
    rows = (torch.arange(length, device=noise.device)[:, None] + shifts) % length
    return flat.gather(0, rows).view_as(noise)


def quiet_tissue(run: Run, mask: np.ndarray) -> np.ndarray:
    """Choose the brain voxels of white matter and CSF, where only physiology fluctuates.

    Parameters
    ----------
    run : Run
        Space and grid; its participant's tissue maps are used where the space is no MNI space.
    mask : ndarray of shape (X, Y, Z), bool
        Brain voxels.

    Returns
    -------
    ndarray of shape (V,), bool
        None is chosen, with a warning, where nothing is known of the tissues.
    """
    tissues = template_tissue_masks(run, mask) or tissue_masks(run, mask)
    if not tissues:
        log.warning(
            "%s: neither tissue maps nor the MNI template tell where white matter and CSF are; "
            "physiology stays in the noise",
            run.label,
        )
    return np.logical_or.reduce([np.zeros_like(mask), *tissues.values()])[mask]


def without_physiology(series: np.ndarray, tissue: np.ndarray, evoked: np.ndarray) -> np.ndarray:
    """Take out of a run what its white matter and CSF fluctuate by, and leave what is evoked.

    The leading principal components of the tissue, which explain half of its variance, are
    regressed out of every voxel, as aCompCor does (Behzadi et al., NeuroImage 37, 90, 2007).
    They are orthogonal to the regressors, so that effects of events stay what they are.

    Parameters
    ----------
    series : ndarray of shape (N, V)
        Residual, %.
    tissue : ndarray of shape (V,), bool
        From `quiet_tissue`; of no voxel leaves the series as it is.
    evoked : ndarray of shape (N, K)
        Regressors of the events.
    """
    quiet = series[:, tissue].astype(np.float64)
    left, strengths, _ = np.linalg.svd(evoked.astype(np.float64), full_matrices=False)
    basis = left[:, strengths > 1e-6 * strengths.max(initial=1e-12)]
    quiet -= basis @ (basis.T @ quiet)
    quiet = quiet[:, quiet.std(axis=0) > 0]
    if not quiet.size:
        return series
    components, singular, _ = np.linalg.svd(quiet / quiet.std(axis=0), full_matrices=False)
    explained = np.cumsum(singular**2) / np.square(singular).sum()
    chosen = components[:, : int(np.searchsorted(explained, EXPLAINED)) + 1].astype(np.float32)
    return series - chosen @ (chosen.T @ series)
