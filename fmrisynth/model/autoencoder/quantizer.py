"""Quantise latent vectors, and train the codebook as a moving average with revival.

Equation numbers are those of van den Oord et al., "Neural Discrete
Representation Learning" (2017, arXiv 1711.00937).

Legend: B batch, C channels, x y z latent voxels, N latent vectors, K codes, M candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from lightning_fabric import Fabric
from torch import Tensor, nn

__all__ = ["CodebookAverage", "Quantized", "VectorQuantizer", "nearest_code"]

DISTANCES_AT_ONCE = 1 << 24  # 64 MiB of float32


class Quantized(NamedTuple):
    """Hold latents and their codes.

    Attributes
    ----------
    z : Tensor of shape (B, C, x, y, z)
        The continuous latents, float32.
    z_q : Tensor of shape (B, C, x, y, z)
        The nearest codes; gradients pass straight through to `z`.
    indices : Tensor of shape (B, x, y, z), int64
        Numbers of the codes.
    loss : Tensor
        Codebook and weighted commitment terms, to be minimised.
    perplexity : Tensor
        exp of the entropy of code use: the number of codes in even use.
    usage : Tensor
        Share of the codes that were used at all, in [0, 1].
    """

    z: Tensor
    z_q: Tensor
    indices: Tensor
    loss: Tensor
    perplexity: Tensor
    usage: Tensor

    @classmethod
    def without_codebook(cls, z: Tensor) -> Quantized:
        """Hold latents that are not quantised."""
        zero = z.new_zeros((), dtype=torch.float32)
        nowhere = torch.zeros_like(z[:, 0], dtype=torch.int64)
        return cls(z, z, nowhere, zero, zero, zero)


def nearest_code(z: Tensor, codes: Tensor) -> Tensor:
    """Find the code nearest to each vector, (N, C), (K, C) → (N,) int64.

    |z − e|² without |z|², which is the same for all codes; in pieces, so that
    8192 codes do not need N × 8192 distances at once.
    """
    norms = codes.square().sum(1)
    rows = max(1, DISTANCES_AT_ONCE // len(codes))
    return torch.cat(
        [torch.addmm(norms, piece, codes.T, alpha=-2).argmin(1) for piece in z.split(rows)]
    )


class VectorQuantizer(nn.Module):
    """Replace each latent vector by the nearest of K code vectors."""

    def __init__(
        self, codes: int, channels: int, *, commitment_weight: float, learn_by_gradient: bool
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)
        self.embedding.weight.requires_grad_(learn_by_gradient)
        self.commitment_weight = commitment_weight

    def forward(self, z: Tensor, inside: Tensor | None = None) -> Quantized:
        """Quantise in float32, whatever precision the caller runs in.

        Parameters
        ----------
        z : Tensor of shape (B, C, x, y, z)
        inside : Tensor of shape (x, y, z), bool, optional
            Latent voxels that count in the loss and the statistics; all by default.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            codes = self.embedding.weight
            rows = rearrange(z, "b c x y z -> (b x y z) c")  # N C
            flat = nearest_code(rows.detach(), codes.detach())
            indices = flat.view(len(z), *z.shape[2:])
            e = F.embedding(indices, codes).movedim(-1, 1)  # B C x y z
            # Eq. 3, last two terms: β on the encoder's side
            loss = self.commitment_weight * _mean_square(z - e.detach(), inside)
            if codes.requires_grad:
                loss = loss + _mean_square(z.detach() - e, inside)
            counted = indices if inside is None else indices[:, inside]
            share = torch.bincount(counted.flatten(), minlength=len(codes)) / counted.numel()
            return Quantized(
                z,
                z + (e - z).detach(),
                indices,
                loss,
                perplexity=torch.special.entr(share).sum().exp(),
                usage=(share > 0).float().mean(),
            )


def _mean_square(difference: Tensor, inside: Tensor | None) -> Tensor:
    """Average squares over the latent voxels that count, (B, C, x, y, z) → ()."""
    if inside is None:
        return difference.square().mean()
    count = inside.sum() * difference.shape[0] * difference.shape[1]
    return (difference.square() * inside).sum() / count


class CodebookAverage:
    """Train codes as moving averages of latent vectors (appendix A.1), and revive dead codes.

    It is not part of `VectorQuantizer`, so that a trained model holds the codes alone.

    Parameters
    ----------
    quantizer : VectorQuantizer
        Its codes are written.
    decay : float
        Weight γ of the past in each update.
    revive_below : float
        A code is dead when it wins less than this share of an even share; it
        is moved to a random latent vector.
    """

    def __init__(
        self, quantizer: VectorQuantizer, *, decay: float = 0.99, revive_below: float = 0.03
    ) -> None:
        self.codes = quantizer.embedding.weight
        self.decay, self.revive_below = decay, revive_below
        self.counts = torch.ones(len(self.codes), device=self.codes.device)  # K
        self.sums = self.codes.detach().clone()  # K C

    @torch.no_grad()
    def start(self, z: Tensor, generator: torch.Generator, *, rounds: int = 5) -> None:
        """Initialise the codes by random latent vectors and some rounds of k-means.

        Parameters
        ----------
        z : Tensor of shape (N, C)
            Latent vectors; they are drawn with replacement when N < K.
        generator : torch.Generator
            On the CPU.
        rounds : int
            Rounds of k-means.
        """
        amount = len(self.codes)
        order = torch.randperm(len(z), generator=generator).repeat(-(-amount // len(z)))
        self.codes.copy_(z[order[:amount].to(z.device)])
        for _ in range(rounds):
            counts, sums = self._won(z, nearest_code(z, self.codes))
            used = counts > 0
            self.codes[used] = sums[used] / counts[used, None]
        self.counts = torch.ones_like(self.counts)
        self.sums = self.codes.detach().clone()

    @torch.no_grad()
    def update(
        self, z: Tensor, indices: Tensor, candidates: Tensor, fabric: Fabric | None = None
    ) -> int:
        """Update the codes by one batch.

        Parameters
        ----------
        z : Tensor of shape (N, C)
            Latent vectors of this process.
        indices : Tensor of shape (N,)
            The codes that won them.
        candidates : Tensor of shape (M, C)
            Latent vectors that dead codes are moved to, the same in all processes.
        fabric : lightning_fabric.Fabric, optional
            Adds up the batches of all processes.

        Returns
        -------
        revived : int
            Number of codes that were dead.
        """
        counts, sums = self._won(z, indices)
        if fabric is not None:
            counts = cast(Tensor, fabric.all_reduce(counts, reduce_op="sum"))
            sums = cast(Tensor, fabric.all_reduce(sums, reduce_op="sum"))
        # Eqs. 6 and 7: N ← γN + (1 − γ)n, m ← γm + (1 − γ)Σz
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        even = self.counts.mean()
        dead = (self.counts < self.revive_below * even).nonzero()[: len(candidates), 0]
        self.counts[dead] = even
        self.sums[dead] = candidates[: len(dead)] * even
        # Eq. 8: e = m / N
        self.codes.copy_(self.sums / self.counts.clamp_min(1e-8)[:, None])
        return len(dead)

    def _won(self, z: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Count the latent vectors that each code won, and sum them."""
        counts = torch.bincount(indices, minlength=len(self.codes)).to(z.dtype)
        return counts, torch.zeros_like(self.sums).index_add_(0, indices, z)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages."""
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the averages; the codes themselves are weights of the model."""
        self.counts.copy_(state["counts"])
        self.sums.copy_(state["sums"])
