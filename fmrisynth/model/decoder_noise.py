"""What the autoencoder loses of a run, kept as numbers so that it can be put back as noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ObservationNoise"]


class ObservationNoise(nn.Module):
    """What the autoencoder loses: fine noise, almost white in space, slightly coloured in time.

    Buffers
    -------
    decoded_sd, lost_sd : torch.Tensor
        (X, Y, Z) on the model grid, %: standard deviations of decode(encode(x))
        and of x − decode(encode(x)) over the training runs.
    lag1 : torch.Tensor
        Scalar, lag-1 autocorrelation of what is lost.
    evoked_gain : torch.Tensor
        Scalar, the share of an evoked response's amplitude that survives
        decode(encode(x)); sampling divides the evoked mean by it.
    """

    decoded_sd: Tensor
    lost_sd: Tensor
    lag1: Tensor
    evoked_gain: Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("decoded_sd", torch.zeros(shape))
        self.register_buffer("lost_sd", torch.zeros(shape))
        self.register_buffer("lag1", torch.zeros(()))
        self.register_buffer("evoked_gain", torch.ones(()))
