"""Encode the volumes of a run to latents and decode latents to volumes, a few at a time.

Training and synthesis share these two functions, so that what is learned and what is
written pass the autoencoder in the same way.

Legend: N frames of a run, C latent channels, X Y Z model grid, x y z latent grid.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.preprocess.grid import continue_outside

__all__ = ["decode_run", "encode_run"]

VOLUMES_AT_ONCE = 16


@torch.inference_mode()
def encode_run(
    autoencoder: VQGAN, frames: np.ndarray, scale: float, mask: np.ndarray
) -> np.ndarray:
    """Encode the volumes of a run to raw latents.

    Parameters
    ----------
    autoencoder : VQGAN
        The autoencoder, on any device.
    frames : ndarray of shape (N, X, Y, Z)
        Residual volumes in %, or whole volumes; may be memory-mapped.
    scale : float
        Global divisor of the volumes.
    mask : ndarray of shape (X, Y, Z), bool
        The brain, beyond which the volumes are continued, as they are where the run has no data.

    Returns
    -------
    ndarray of shape (N, C, x, y, z)
        Raw latents, float32, not standardised.
    """
    device = next(autoencoder.parameters()).device
    pieces = []
    for start in range(0, len(frames), VOLUMES_AT_ONCE):
        piece = np.asarray(frames[start : start + VOLUMES_AT_ONCE], np.float32)
        continued = continue_outside(piece, mask & piece.any(0), autoencoder.config.factor)
        x = torch.from_numpy(continued)[:, None] / scale
        pieces.append(autoencoder.encode(x.to(device)).float().cpu())
    return torch.cat(pieces).numpy()


@torch.inference_mode()
def decode_run(autoencoder: VQGAN, latents: Tensor, scale: float, mask: np.ndarray) -> np.ndarray:
    """Decode the raw latents of a run; the inverse of `encode_run` up to its error.

    Parameters
    ----------
    autoencoder : VQGAN
        The autoencoder, on any device.
    latents : Tensor of shape (N, C, x, y, z)
        Raw latents, float32.
    scale : float
        Global divisor of the volumes.
    mask : ndarray of shape (X, Y, Z), bool
        The brain, beyond which the volumes are continued: a run's brain may reach further.

    Returns
    -------
    ndarray of shape (N, X, Y, Z)
        Volumes in the unit of the encoded ones, float32.
    """
    device = next(autoencoder.parameters()).device
    pieces = [
        autoencoder.decode(autoencoder.codes(piece.to(device)))[:, 0].float().cpu()
        for piece in latents.split(VOLUMES_AT_ONCE)
    ]
    decoded = torch.cat(pieces).numpy() * np.float32(scale)
    return continue_outside(decoded, mask, autoencoder.config.factor)
