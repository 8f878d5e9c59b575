"""Find exact small coordinates of maps: a few hundred numbers in place of all voxels.

Legend: M maps, V voxels, N coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["centred", "inner_products", "span_coordinates"]

_CHUNK = 16_384

Pair = tuple[str, str]


def centred(maps: np.ndarray) -> np.ndarray:
    """Take the mean over voxels from maps (..., V), float64, which are coordinates themselves."""
    values = maps.astype(np.float64)
    values -= values.mean(axis=-1, keepdims=True)
    return values


def inner_products(
    maps: np.ndarray, rows: Mapping[str, slice], pairs: Sequence[Pair]
) -> dict[Pair, np.ndarray]:
    """Compute the inner products of the centred maps of pairs of sources.

    Each pair is computed by itself, so that its numbers do not depend on which
    other sources there are.

    Parameters
    ----------
    maps : ndarray of shape (M, V)
        Maps of all sources; may lie on disk.
    rows : mapping
        Source → its rows.
    pairs : sequence of (str, str)
        Pairs of sources.

    Returns
    -------
    dict
        Pair → ndarray of shape (M of the first, M of the second).
    """
    means = np.array([row.mean(dtype=np.float64) for row in maps], dtype=np.float32)
    sizes = {source: part.stop - part.start for source, part in rows.items()}
    products = {pair: np.zeros((sizes[pair[0]], sizes[pair[1]])) for pair in pairs}
    for start in range(0, maps.shape[1], _CHUNK):
        chunks = {
            source: maps[part, start : start + _CHUNK] - means[part, None]
            for source, part in rows.items()
        }
        for first, second in pairs:
            products[first, second] += chunks[first] @ chunks[second].T
    return products


def span_coordinates(gram: np.ndarray) -> np.ndarray:
    """Find coordinates with given inner products and mean zero.

    Parameters
    ----------
    gram : ndarray of shape (M, M)
        Inner products of centred maps.

    Returns
    -------
    ndarray of shape (M, N)
        With ``N ≤ M + 1``; each row sums to zero, and the inner products of
        the rows are those given.
    """
    values, vectors = np.linalg.eigh(gram)
    usable = values > 1e-9 * values.max(initial=np.finfo(float).tiny)
    coordinates = vectors[:, usable] * np.sqrt(values[usable])
    # Append an empty axis and reflect it onto the direction of all ones: every
    # row becomes orthogonal to that direction, so that centring leaves it alone.
    n = coordinates.shape[1] + 1
    padded = np.pad(coordinates, ((0, 0), (0, 1)))
    mirror = np.full(n, -1.0 / np.sqrt(n))
    mirror[-1] += 1.0
    length = mirror @ mirror
    if length > 0:
        padded -= 2.0 * np.outer(padded @ mirror, mirror) / length
    return padded
