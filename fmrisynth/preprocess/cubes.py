"""Average over cubes of voxels that are mostly brain, and interpolate between their means.

Legend: X Y Z grid, V voxels of the brain, Q cubes that hold any of them, in the grid's order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

__all__ = ["between_cubes", "cube_means"]


def cube_means(brain: np.ndarray, edges: Sequence[int]) -> csr_array:
    """Return the matrix that averages over the voxels of each cube.

    Parameters
    ----------
    brain : ndarray of shape (X, Y, Z), bool
        The voxels.
    edges : sequence of three int
        Of a cube, voxels.

    Returns
    -------
    csr_array of shape (Q, V)
        float32; rows of zeros for cubes of which less than half is brain: the mean of a few voxels
        at the edge is that of their own noise.
    """
    _, cube, weight = _cubes(brain, edges)
    shape = (len(weight), len(cube))
    return csr_array((weight[cube], (cube, np.arange(len(cube)))), shape=shape)


def between_cubes(brain: np.ndarray, edges: Sequence[int]) -> csr_array:
    """Return the matrix that interpolates the means of cubes linearly, from centre to centre.

    Parameters
    ----------
    brain, edges
        As for `cube_means`.

    Returns
    -------
    csr_array of shape (V, Q)
        float32; rows add up to one, or to zero where no cube that is mostly brain is near.
    """
    places, cube, weight = _cubes(brain, edges)
    box = places.max(0) + 3  # with a margin, which interpolation may reach
    number = np.full(box, -1)
    number[tuple((places[np.unique(cube, return_index=True)[1]] + 1).T)] = np.where(
        weight > 0, np.arange(len(weight)), -1
    )
    position = (np.argwhere(brain) + 0.5) / np.asarray(edges) + 0.5  # in cubes, with the margin
    below = np.floor(position).astype(int)
    share = position - below
    parts = []
    for corner in np.ndindex(2, 2, 2):
        at = number[tuple((below + corner).T)]
        near = np.flatnonzero(at >= 0)
        weights = np.prod(np.where(corner, share[near], 1 - share[near]), axis=1)
        parts.append((weights, near, at[near]))
    weights, voxels, cubes = (np.concatenate(part) for part in zip(*parts, strict=True))
    total = np.bincount(voxels, weights, len(position))
    weights = (weights / np.maximum(total, 1e-9)[voxels]).astype(np.float32)
    return csr_array((weights, (voxels, cubes)), shape=(len(position), len(weight)))


def _cubes(brain: np.ndarray, edges: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return place (V, 3) and number (V,) of each voxel's cube, and the weight of its voxels (Q,).

    The weight is one over their number, 0 in cubes that are mostly outside.
    """
    places = np.argwhere(brain) // np.asarray(edges)
    box = np.array(brain.shape) // np.asarray(edges) + 1
    _, cube, count = np.unique(
        np.ravel_multi_index(tuple(places.T), tuple(box)), return_inverse=True, return_counts=True
    )
    weight = np.where(count >= np.prod(edges) / 2, 1 / count, 0).astype(np.float32)
    return places, cube, weight
