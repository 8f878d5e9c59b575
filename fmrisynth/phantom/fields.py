"""Define the voxel grid, and draw smooth random fields on it.

Fields are cubic B-splines on a lattice of knots in millimetres, so that their smoothness does
not depend on the voxel size. Arrays on the grid are ordered (Z, Y, X), the order of a NIfTI
file's bytes, so that a run is written without a transposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import sparse

__all__ = ["Grid", "SplineLattice", "VoxelGrid", "random_fields", "weighted_sum"]

# First voxel centre and extent of the field of view in mm, that of MNI152 at 4 mm (46 × 55 × 46).
_ORIGIN = np.array([-90.0, -126.0, -72.0])
_EXTENT = np.array([184.0, 220.0, 184.0])


class VoxelGrid(Protocol):
    """Any regular grid of voxels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the first, second and third axis."""

    @property
    def affine(self) -> np.ndarray:
        """Voxel indices to mm, (4, 4)."""

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Edges of a voxel in mm."""


@dataclass(frozen=True)
class Grid:
    """Isotropic voxels over the MNI field of view, axes towards right, front and top.

    Attributes
    ----------
    voxel_size : float
        Edge of the voxels in mm.
    """

    voxel_size: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = (int(n) for n in np.ceil(_EXTENT / self.voxel_size))
        return x, y, z

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Edges of a voxel in mm."""
        return (self.voxel_size, self.voxel_size, self.voxel_size)

    @property
    def affine(self) -> np.ndarray:
        """Voxel indices to mm, (4, 4)."""
        affine = np.diag([self.voxel_size] * 3 + [1.0])
        affine[:3, 3] = _ORIGIN
        return affine

    @cached_property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxel centres along x, y and z in mm."""
        x, y, z = (
            _ORIGIN[i] + self.voxel_size * np.arange(n, dtype=np.float32)
            for i, n in enumerate(self.shape)
        )
        return x, y, z

    def coordinates(self) -> np.ndarray:
        """Voxel centres in mm, (3, Z, Y, X) with rows x, y, z."""
        x, y, z = self.axes
        zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")
        return np.stack([xx, yy, zz]).astype(np.float32)


@dataclass(frozen=True)
class SplineLattice:
    """Separable cubic B-splines on a lattice of knots.

    Attributes
    ----------
    grid : Grid
        Where the splines are evaluated.
    spacing : float
        Distance of the knots in mm; the kernel is nearly a Gaussian of SD `spacing` / sqrt(3).
    """

    grid: Grid
    spacing: float

    @cached_property
    def weights(self) -> tuple[sparse.csr_matrix, ...]:
        """One (voxels, knots) matrix per axis, in the order z, y, x."""
        return tuple(self._axis_weights(points) for points in self.grid.axes[::-1])

    @property
    def knots(self) -> tuple[int, int, int]:
        """Knots along z, y and x."""
        z, y, x = (matrix.shape[1] for matrix in self.weights)
        return z, y, x

    @cached_property
    def sd(self) -> np.ndarray:
        """SD of a field with white coefficients of variance 1, (Z, Y, X)."""
        z, y, x = (np.asarray(m.multiply(m).sum(axis=1)).ravel() for m in self.weights)
        return np.sqrt(z[:, None, None] * y[:, None] * x).astype(np.float32)

    def _axis_weights(self, points: np.ndarray) -> sparse.csr_matrix:
        position = (points - points[0]) / self.spacing
        first = np.floor(position).astype(int)
        u = (position - first).astype(np.float32)
        values = np.stack(
            [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1
        )
        columns = first[:, None] + np.arange(4)
        rows = np.repeat(np.arange(len(points)), 4)
        return sparse.csr_matrix(
            (values.ravel() / 6, (rows, columns.ravel())), shape=(len(points), first[-1] + 4)
        )

    def evaluate(self, coefficients: np.ndarray) -> np.ndarray:
        """Evaluate splines on the grid.

        Parameters
        ----------
        coefficients : ndarray of shape (N, *knots)

        Returns
        -------
        ndarray of shape (N, Z, Y, X)
        """
        # Each pass interpolates the leading axis and turns it to the end: after the first turn
        # (z, y, x, N), and after the three passes (N, Z, Y, X) again.
        field = np.moveaxis(coefficients, 0, -1)
        for matrix in self.weights:
            rest = field.shape[1:]
            field = matrix @ np.ascontiguousarray(field).reshape(field.shape[0], -1)
            field = np.moveaxis(field.reshape(-1, *rest), 0, -1)
        return field


def random_fields(lattice: SplineLattice, n_fields: int, rng: np.random.Generator) -> np.ndarray:
    """Draw independent smooth fields of mean 0 and variance 1, (N, Z, Y, X)."""
    white = rng.standard_normal((n_fields, *lattice.knots), dtype=np.float32)
    return lattice.evaluate(white) / lattice.sd


def weighted_sum(weights: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return ``weights @ maps`` for a small (T, K) and a large (K, V) array.

    A sparse product runs in one thread and always adds in the same order, so that the bytes
    written do not depend on the machine's number of threads.
    """
    return sparse.csr_matrix(weights.astype(np.float32)) @ np.ascontiguousarray(maps, np.float32)
