"""Give regions of a synthetic run the fluctuations that they have in the participant's other runs.

How much of its voxels' fluctuations a region has as a whole differs between participants and hardly
between a participant's runs. Networks that lie in part outside of the noise model's modes, what an
autoencoder loses, and covariances that are shrunk towards the group's all take from it. So the part
of the decoded noise that varies slowly in space, and the rest, have a factor each.

Legend: N frames, V voxels, K regressors, R regions.
"""

from __future__ import annotations

import numpy as np
import torch

from fmrisynth.bids.pieces import brain_pieces
from fmrisynth.model.noise.protocol import VoxelNoise
from fmrisynth.preprocess.carrier import least_squares
from fmrisynth.preprocess.cubes import between_cubes, cube_means
from fmrisynth.synthesis.missing_noise import temporal_sd

__all__ = ["balance_regions", "region_share"]

EDGE = 30.0  # mm, of a region
LARGEST_FACTOR = 1.5
VOXELS = 2**14  # which are enough for a mean over the brain
ROUNDS = 8  # in which factors that depend on each other are found


def region_share(
    series: np.ndarray,
    regressors: np.ndarray,
    deviation: np.ndarray,
    brain: np.ndarray,
    edges: np.ndarray,
) -> float:
    """Measure how much regions fluctuate as a whole, of what their voxels do.

    Parameters
    ----------
    series : ndarray of shape (N, V)
        Without mean and drift.
    regressors : ndarray of shape (N, K)
        Of the evoked responses, which do not count.
    deviation : ndarray of shape (V,)
        Temporal standard deviation of the voxels, in the units of the series.
    brain : ndarray of shape (X, Y, Z), bool
        The voxels.
    edges : ndarray of shape (3,)
        Of a voxel, mm.

    Returns
    -------
    float
        Standard deviation of a region's mean over the mean of its voxels', geometric mean over
        cubes of 30 mm; 0 where there is no such cube.
    """
    means = cube_means(brain, _edges_of_cubes(edges))
    return _share(temporal_sd((means @ series.T).T, regressors), means @ deviation)


def balance_regions(
    series: np.ndarray,
    regressors: np.ndarray,
    wanted: VoxelNoise,
    deviation: np.ndarray,
    brain: np.ndarray,
    edges: np.ndarray,
    generator: torch.Generator,
) -> np.ndarray:
    """Balance, in place, what evoked responses leave of decoded series between coarse and fine.

    Parameters
    ----------
    series, regressors, brain, edges
        As for `region_share`.
    wanted : VoxelNoise
        Of the participant's other runs, from which this one differs as they do from each other.
    deviation : ndarray of shape (V,)
        Temporal standard deviation that the voxels will have, decoder noise included, which adds
        next to nothing to the means of regions. The decoded noise does not become louder, and
        quieter where it is louder than this.
    generator : torch.Generator
        Of how this run differs.

    Returns
    -------
    ndarray of shape (V,)
        Temporal standard deviation of what evoked responses leave, as `temporal_sd` computes it.
    """
    difference = wanted.regions_spread * float(torch.randn((), generator=generator))
    cubes = _edges_of_cubes(edges)
    means = cube_means(brain, cubes)
    levels = means @ deviation
    if wanted.regions <= 0 or not levels.any():
        return temporal_sd(series, regressors)
    between = between_cubes(brain, cubes)
    aim = wanted.regions * np.exp(difference)
    whole, used = least_squares(regressors, (means @ series.T).T)  # N R
    freedom = max(1, len(series) - used)
    # power of the coarse part, of both, of the fine part, in voxels that are spread over the brain
    some = np.arange(0, series.shape[1], max(1, series.shape[1] // VOXELS))
    rest = least_squares(regressors, series[:, some])[0]
    coarse = (between[some] @ whole.T).T
    fine = rest - coarse
    power = [float((a * b).sum()) for a, b in ((coarse, coarse), (coarse, fine), (fine, fine))]
    loudest = freedom * float(np.square(deviation[some]).sum())
    allowed = min(power[0] + 2 * power[1] + power[2], loudest)
    smooth = ((means @ between) @ whole.T).T  # of regions, the coarse part
    a = b = 1.0
    for _ in range(ROUNDS):
        sd = np.sqrt(np.square(a * smooth + b * (whole - smooth)).sum(0) / freedom)
        a = _limited(a * aim / max(_share(sd, levels), 1e-9))
        left = allowed - power[0] * a**2
        b = _limited((-power[1] * a + max((power[1] * a) ** 2 + power[2] * left, 0) ** 0.5)
                     / max(power[2], 1e-9))  # fmt: skip
    drawn = np.zeros(series.shape[1], np.float32)
    for voxels in brain_pieces(np.ones(series.shape[1], bool)):
        rest = least_squares(regressors, series[:, voxels])[0]
        coarse = (between[voxels] @ whole.T).T
        balanced = np.float32(b) * rest + np.float32(a - b) * coarse
        series[:, voxels] += balanced - rest
        drawn[voxels] = np.sqrt(np.square(balanced).sum(0) / freedom)
    return drawn


def _share(whole: np.ndarray, voxels: np.ndarray) -> float:
    """Average the ratio of two standard deviations (R,) geometrically; 0 where none is known."""
    known = (whole > 0) & (voxels > 0)
    return float(np.exp(np.mean(np.log(whole[known] / voxels[known])))) if known.any() else 0.0


def _limited(factor: float) -> float:
    return float(np.clip(factor, 1 / LARGEST_FACTOR, LARGEST_FACTOR))


def _edges_of_cubes(edges: np.ndarray) -> list[int]:
    """Return the edges of a region in voxels, at least two."""
    return [max(2, round(EDGE / float(edge))) for edge in edges]
