"""Predict the velocity of the noise's modes from how loud each of them is in a noisy window.

Noise that is inferred from a participant's other runs has the right covariance on average. A
run, and a window of it, has its own: a mode (network) is louder or quieter than that, as the
noisy window itself shows. With a_k the variance of mode k in the data, in units of that in ε,

    E[v_k | x] = g_k · x_k,  g_k = cos θ sin θ (1 − a_k) / (a_k cos²θ + sin²θ),

since x_k = cos θ · u_k + sin θ · ε_k (Wiener's filter; both Gaussian, of one course in time). One
small network for all modes reads log a_k from the power of the mode, of its neighbours in rank,
and of all. What is learned of one mode holds for the others, so that a few participants teach
it, and it holds for the modes of another fit.

Legend: B windows, T frames, C latent channels, X Y Z latent grid, K modes in order of variance.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fmrisynth.model.layers import zero_

__all__ = ["ModeHead"]

NEIGHBOURS = 9, 33  # modes of about the same rank, whose power is averaged
LARGEST = 32  # modes that show how loud the large networks are together
FEATURES = 6 + 2 + 2  # logarithms of powers, rank, angle
FLOOR = 0.01  # of power, below which a mode is silent
QUIETEST, LOUDEST = -4.0, 6.0  # log a


class ModeHead(nn.Module):
    """Predict the velocity that lies in the modes of the noise.

    Parameters
    ----------
    width : int
        Hidden channels of the network.

    Attributes
    ----------
    maps : Tensor of shape (K, C·X·Y·Z)
        The modes, orthonormal; none until `attach`, since they are the noise model's.
    """

    maps: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # beyond what training has seen, the line goes on
        self.line = zero_(nn.Linear(FEATURES, 1))
        self.curve = nn.Sequential(
            nn.Linear(FEATURES, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            zero_(nn.Linear(width, 1)),
        )
        self.register_buffer("maps", torch.zeros(0, 0), persistent=False)

    def attach(self, maps: Tensor) -> None:
        """Use the modes (K, C, X, Y, Z) of a noise model, in order of their variance."""
        self.maps = maps.flatten(1).contiguous().to(self.line.weight.device)

    def forward(self, x: Tensor, theta: Tensor, sd: Tensor) -> Tensor:
        """Predict the velocity of noisy latents (B, T, C, X, Y, Z) at angles (B,).

        Parameters
        ----------
        x : Tensor of shape (B, T, C, X, Y, Z)
            Noisy latents, zero outside the brain.
        theta : Tensor of shape (B,)
            Angles.
        sd : Tensor of shape (B, K)
            Standard deviation of ε along each mode.

        Returns
        -------
        Tensor of shape (B, T, C, X, Y, Z)
            float32; zero as long as there are no modes.
        """
        if not len(self.maps):
            return torch.zeros_like(x, dtype=torch.float32)
        courses = (x.flatten(2) @ self.maps.T).float()  # B T K
        cos, sin = theta.cos()[:, None], theta.sin()[:, None]
        variance = self._log_variance(courses / sd[:, None], cos, sin).exp()
        gain = cos * sin * (1 - variance) / (variance * cos**2 + sin**2)
        velocity = ((gain[:, None] * courses) @ self.maps).float()
        return velocity.view(x.shape)

    def _log_variance(self, courses: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Estimate log a_k from courses (B, T, K) in units of ε, (B, K)."""
        power = courses.square().mean(1)
        powers = [power, courses.diff(dim=1).square().mean(1)]
        powers += [_average(power, count) for count in NEIGHBOURS]
        powers += [power.mean(1, keepdim=True), power[:, :LARGEST].mean(1, keepdim=True)]
        rank = torch.arange(1, power.shape[1] + 1, device=power.device)
        places = [rank / len(rank), rank.log() / LARGEST**0.5]
        columns = [(p + FLOOR).log() for p in powers] + places + [cos, sin]
        features = torch.stack([column.expand_as(power) for column in columns], dim=-1)
        curve = self.curve(features.clamp(-2, 2))
        log_variance = rearrange(self.line(features) + curve, "b k 1 -> b k").float()
        return log_variance.clamp(QUIETEST, LOUDEST)


def _average(power: Tensor, count: int) -> Tensor:
    """Average the power (B, K) of each mode and its neighbours in rank."""
    half = count // 2
    return F.avg_pool1d(power[:, None], count, 1, half, count_include_pad=False)[:, 0]
