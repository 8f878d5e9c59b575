"""Draw axial slices, carpets and large matrices as PNG in data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.image
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from nibabel.orientations import aff2axcodes, io_orientation

__all__ = ["Slices", "data_uri", "draw_carpet", "draw_large_matrix", "draw_slices", "png_uri"]

_COLD_HOT = LinearSegmentedColormap.from_list(
    "cold_hot",
    ["#b8f4ff", "#1e90ff", "#10208a", "#3c3c3c", "#8a1010", "#ff6a00", "#ffee66"],
)
"""Effects on grey anatomy: blue and cyan below zero, red and yellow above."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST_PNG = 4 * 2**20  # bytes


@dataclass(frozen=True)
class Slices:
    """A strip of axial slices.

    Attributes
    ----------
    image : str
        PNG as a data URI.
    heights : tuple of float
        World z of each slice, in mm.
    """

    image: str
    heights: tuple[float, ...]


def data_uri(png: bytes) -> str:
    """Write PNG bytes as a data URI.

    Parameters
    ----------
    png : bytes
        The picture.

    Returns
    -------
    str
    """
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def png_uri(path: Path) -> str | None:
    """Read a PNG file as a data URI.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str or None
        None when it cannot be read, is no PNG, or is larger than a page should hold.
    """
    try:
        if path.stat().st_size > _LARGEST_PNG:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    return data_uri(content) if content.startswith(_PNG_SIGNATURE) else None


def draw_slices(
    background: np.ndarray,
    overlay: np.ndarray | None,
    affine: np.ndarray,
    *,
    limit: float,
    threshold: float = 0.0,
    n_slices: int = 6,
) -> Slices:
    """Draw axial slices of a map on an anatomical background.

    Parameters
    ----------
    background : ndarray of shape (X, Y, Z)
        Grey background, e.g. the mean image.
    overlay : ndarray of shape (X, Y, Z), or None
        Map in colour; None draws the background alone.
    affine : ndarray of shape (4, 4)
        Voxel to world, in mm.
    limit : float
        Value of the strongest colour, the same for maps to be compared.
    threshold : float
        Smaller values are left transparent.
    n_slices : int
        Number of slices.

    Returns
    -------
    Slices
    """
    grey = _upright(background, affine)
    inside = np.flatnonzero((grey > 0).any(axis=(0, 1)))
    first, last = (inside[0], inside[-1]) if inside.size else (0, grey.shape[2] - 1)
    levels = np.unique(np.linspace(first, last, n_slices + 2).round().astype(int)[1:-1])
    rows = np.flatnonzero((grey > 0).any(axis=(1, 2)))
    columns = np.flatnonzero((grey > 0).any(axis=(0, 2)))
    box = (
        slice(rows[0], rows[-1] + 1) if rows.size else slice(None),
        slice(columns[0], columns[-1] + 1) if columns.size else slice(None),
    )
    top = np.percentile(grey[grey > 0], 99) if inside.size else 1.0
    colours = np.repeat(np.clip(grey / top, 0, 1)[..., None] * 0.75, 3, axis=-1)
    if overlay is not None:
        values = _upright(overlay, affine)
        ink = _COLD_HOT(0.5 + 0.5 * np.clip(values / limit, -1, 1))[..., :3]
        alpha = np.where((np.abs(values) > threshold) & (grey > 0), 0.9, 0.0)
        colours = colours * (1 - alpha[..., None]) + ink * alpha[..., None]
    # (X, Y, Z, 3) → strip of (Y, X) pictures, front of the head up
    pictures = [np.flipud(colours[(*box, level)].transpose(1, 0, 2)) for level in levels]
    gap = max(1, pictures[0].shape[1] // 20)
    strip = np.concatenate([np.pad(p, ((0, 0), (gap, gap), (0, 0))) for p in pictures], axis=1)
    zoom = max(1, round(130 * len(levels) / max(strip.shape[1], 1)))
    strip = np.repeat(np.repeat(strip, zoom, axis=0), zoom, axis=1)
    return Slices(data_uri(_png(strip)), _heights(levels, affine, background.shape))


def draw_carpet(series: np.ndarray, *, limit: float, most_rows: int = 240) -> str:
    """Draw all series of a run as rows of grey.

    Parameters
    ----------
    series : ndarray of shape (B, T)
        Percent signal change, neighbours beside each other.
    limit : float
        Change drawn white (and black below zero), the same for runs to be compared.
    most_rows : int
        Rows of the picture; more series are averaged in groups.

    Returns
    -------
    str
        PNG as a data URI, one pixel per volume.
    """
    groups = np.array_split(series, min(most_rows, len(series)))
    rows = np.array([group.mean(axis=0) for group in groups])
    grey = 0.5 + 0.5 * np.clip(rows / limit, -1, 1)
    return data_uri(_png(np.repeat(grey[..., None], 3, axis=-1)))


def draw_large_matrix(matrix: np.ndarray, limit: float) -> str:
    """Draw a matrix with too many cells for numbers, blue below zero and red above.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Values; NaN is drawn grey.
    limit : float
        Value of the strongest colour, the same for matrices to be compared.

    Returns
    -------
    str
        PNG as a data URI, one pixel per cell.
    """
    colours = mpl.colormaps["RdBu_r"](0.5 + 0.5 * np.clip(matrix / limit, -1, 1))[..., :3]
    return data_uri(_png(np.where(np.isfinite(matrix)[..., None], colours, 0.5)))


def _png(colours: np.ndarray) -> bytes:
    """Encode an (H, W, 3) array in 0…1 as PNG."""
    stream = io.BytesIO()
    matplotlib.image.imsave(stream, np.clip(colours, 0, 1), format="png", metadata={"Software": ""})
    return stream.getvalue()


def _upright(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn a volume so that its axes point to the right, the front and the top."""
    orientation = io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    turned = np.transpose(volume, order)
    for axis in range(3):
        if orientation[order[axis], 1] < 0:
            turned = np.flip(turned, axis)
    return turned


def _heights(levels: np.ndarray, affine: np.ndarray, shape: Sequence[int]) -> tuple[float, ...]:
    """World z at the middle of each upright slice, in mm."""
    codes = aff2axcodes(affine)
    axis = next(i for i, code in enumerate(codes) if code in "SI")
    centre = (np.array(shape) - 1) / 2
    heights = []
    for level in levels:
        voxel = centre.copy()
        voxel[axis] = level if codes[axis] == "S" else shape[axis] - 1 - level
        heights.append(float((affine @ [*voxel, 1.0])[2]))
    return tuple(heights)
