"""Hold the statistics of the decoder noise: the reconstruction error of the autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["LARGEST_CORRELATION", "DecoderNoise"]

LARGEST_CORRELATION = 0.45  # of neighbours, that adding a share of each can make


class DecoderNoise(nn.Module):
    """Describe the reconstruction error: of short reach in space, weakly autocorrelated in time.

    Synthesis adds noise of this kind to what the decoder returns.

    Attributes
    ----------
    decoded_sd, error_sd : Tensor of shape (X, Y, Z)
        Standard deviations (%) on the model grid of decode(encode(x)) and of
        x − decode(encode(x)) over the training runs.
    lag1 : Tensor of shape ()
        Lag-1 autocorrelation of the reconstruction error.
    evoked_gain : Tensor of shape ()
        Share of an evoked response's amplitude that survives decode(encode(x));
        sampling divides the evoked mean by it.
    coarse_gain : Tensor of shape ()
        Standard deviation of the means of large cubes before, over that after,
        decode(encode(x)); sampling multiplies the noise by it. The decoder noise,
        of short reach in space, has no such means.
    burst_share : Tensor of shape ()
        Log intensity of the error's frames over that of the latents' frames.
    neighbours : Tensor of shape (3,)
        Correlation of the error of adjacent voxels along each axis.
    """

    decoded_sd: Tensor
    error_sd: Tensor
    lag1: Tensor
    evoked_gain: Tensor
    coarse_gain: Tensor
    burst_share: Tensor
    neighbours: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("decoded_sd", torch.zeros(shape))
        self.register_buffer("error_sd", torch.zeros(shape))
        self.register_buffer("lag1", torch.zeros(()))
        self.register_buffer("evoked_gain", torch.ones(()))
        self.register_buffer("coarse_gain", torch.ones(()))
        self.register_buffer("burst_share", torch.ones(()))
        self.register_buffer("neighbours", torch.zeros(3))
