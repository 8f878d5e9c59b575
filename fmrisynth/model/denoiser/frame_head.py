"""Compute the part of the output that is modulated frame by frame: maps times courses.

Legend: B batch, T frames, J components, F features of a frame, C latent channels, D width,
E width of the condition, X Y Z latent grid.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from fmrisynth.model.layers import linear, unfold, zero_

__all__ = ["FrameHead"]


class FrameHead(nn.Module):
    """Sum maps times courses, out(t, p) = Σ_j s_j(t) · (grid_j(p) + W_j · features(p)).

    The course s_j(t) depends on the events' features at frame t, linearly and by a small
    network, and is scaled by the pooled condition and the angle. Maps start at zero and
    courses do not, so that the output starts at zero and its gradient does not.

    Parameters
    ----------
    components : int
        J.
    n_features : int
        F.
    condition_width, width : int
        E and D.
    channels : int
        C.
    grid : tuple of int
        (X, Y, Z).
    stem : int
        Factor between that grid and the grid of the features.
    """

    def __init__(
        self,
        components: int,
        n_features: int,
        condition_width: int,
        width: int,
        channels: int,
        grid: tuple[int, int, int],
        stem: int = 1,
    ) -> None:
        super().__init__()
        self.linear = linear(n_features, components)
        nn.init.normal_(self.linear.weight)
        self.network = nn.Sequential(
            linear(n_features, condition_width),
            nn.SiLU(),
            nn.Linear(condition_width, components),
        )
        self.gain = zero_(nn.Linear(condition_width, components))
        self.maps = nn.Parameter(torch.zeros(components, channels, *grid))
        self.project = zero_(
            unfold(width, components * channels, stem, bias=False)
            if stem > 1
            else nn.Conv3d(width, components * channels, 1, bias=False)
        )

    def forward(self, frames: Tensor, pooled: Tensor, features: Tensor) -> Tensor:
        """Map frames (B, T, F), pooled condition (B, E), features (B, D, X, Y, Z) to the output.

        Returns
        -------
        Tensor of shape (B, T, C, X, Y, Z)
        """
        courses = (self.linear(frames) + self.network(frames)) * (1 + self.gain(pooled))[:, None]
        courses = courses / len(self.maps) ** 0.5
        maps = rearrange(self.project(features), "b (j c) x y z -> b j c x y z", j=len(self.maps))
        return torch.einsum("btj,bjcxyz->btcxyz", courses, self.maps + maps)
