"""Drawings of the report: brain slices as PNG, everything else as SVG.

SVG drawings are inlined in the page and take their ink from it
(``currentColor``), so that they follow light, dark and print. Brain slices
stand on black in every scheme.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.image
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.ticker import FormatStrFormatter, NullFormatter
from nibabel.orientations import aff2axcodes, io_orientation

__all__ = [
    "COLOURS",
    "colour_of",
    "data_uri",
    "draw_autocorrelation",
    "draw_dots",
    "draw_matrix",
    "draw_slices",
    "draw_spectra",
    "draw_time_course",
]

_INK = "#010203"  # replaced by currentColor in the SVG

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
"""Okabe and Ito's colours, told apart by colour-blind readers; the first is the real data's."""

_COLD_HOT = LinearSegmentedColormap.from_list(
    "cold_hot",
    ["#b8f4ff", "#1e90ff", "#10208a", "#3c3c3c", "#8a1010", "#ff6a00", "#ffee66"],
)
"""Effects on grey anatomy: blue and cyan below zero, red and yellow above."""

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names come from the dataset and may hold "$"
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "svg.hashsalt": "fmrisynth",
}


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


def colour_of(index: int) -> str:
    """Colour of a source: 0 is the real data, then the generators in their order."""
    return COLOURS[index % len(COLOURS)]


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
    background : ndarray, shape (X, Y, Z)
        Grey background, e.g. the mean image.
    overlay : ndarray, shape (X, Y, Z), or None
        Map in colour; None draws the background alone.
    affine : ndarray, shape (4, 4)
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


def draw_matrix(
    matrix: np.ndarray,
    names: Sequence[str],
    *,
    label: str,
    low: float,
    high: float,
    rows: str = "",
    columns: str = "",
) -> str:
    """Draw a square matrix with its values.

    Parameters
    ----------
    matrix : ndarray, shape (n, n)
        Values; NaN cells stay empty.
    names : sequence of str
        Names of rows and columns.
    label : str
        Description for screen readers.
    low, high : float
        Range of the colours.
    rows, columns : str
        What the rows and the columns are.

    Returns
    -------
    str
        SVG.
    """
    n = len(names)
    size = min(5.5, 1.6 + 0.34 * n)
    with _drawing(size, size) as (canvas, axes):
        colours = mpl.colormaps["viridis"]
        span = max(high - low, 1e-9)
        for i in range(n):
            for j in range(n):
                value = matrix[i, j]
                if not np.isfinite(value):
                    continue
                shade = float(np.clip((value - low) / span, 0, 1))
                axes.add_patch(Rectangle((j, i), 1, 1, color=colours(shade), lw=0))
                if n <= 8:
                    ink = "white" if shade < 0.6 else "black"
                    text = f"{value + 0.0:.2f}".replace("-0.00", "0").replace("0.", ".", 1)
                    axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", size=7, color=ink)
        axes.set(xlim=(0, n), ylim=(n, 0), xlabel=columns, ylabel=rows, aspect="equal")
        short = [name if len(name) <= 22 else name[:21] + "…" for name in names]
        size_of_names = 8 if n <= 12 else 6
        axes.set_xticks(np.arange(n) + 0.5, short, rotation=90, fontsize=size_of_names)
        axes.set_yticks(np.arange(n) + 0.5, short, fontsize=size_of_names)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(canvas, label)


def draw_time_course(
    times: np.ndarray,
    curves: Mapping[str, np.ndarray],
    prediction: np.ndarray,
    duration: float,
    *,
    colours: Mapping[str, str],
    label: str,
) -> str:
    """Draw mean responses with their 95 % interval over participants.

    Parameters
    ----------
    times : ndarray, shape (S,)
        Time from the epoch's onset, in s.
    curves : mapping
        Source → ndarray, shape (P, S), in percent.
    prediction : ndarray, shape (S,)
        Canonical prediction.
    duration : float
        Duration of the epoch, in s.
    colours : mapping
        Source → colour.
    label : str
        Description for screen readers.

    Returns
    -------
    str
        SVG.
    """
    with _drawing(3.6, 2.3) as (canvas, axes):
        axes.axvspan(0, min(duration, times[-1]), color="#888888", alpha=0.15, lw=0)
        axes.axhline(0, color=_INK, lw=0.5, alpha=0.5)
        axes.plot(times, prediction, color=_INK, lw=1, ls=":")
        for source, rows in curves.items():
            if not len(rows):
                continue
            seen = np.isfinite(rows).any(axis=0)
            mean = np.nanmean(rows[:, seen], axis=0)
            axes.plot(times[seen], mean, color=colours[source], lw=1.6)
            if len(rows) > 1:
                error = 1.96 * np.nanstd(rows[:, seen], axis=0, ddof=1) / np.sqrt(len(rows))
                axes.fill_between(
                    times[seen], mean - error, mean + error, color=colours[source], alpha=0.18, lw=0
                )
        axes.set(xlabel="s from onset", ylabel="% signal change", xlim=(times[0], times[-1]))
        return _svg(canvas, label)


def draw_spectra(
    spectra: Mapping[str, np.ndarray], nyquist: float | None, colours: Mapping[str, str]
) -> str:
    """Draw mean power spectra.

    Parameters
    ----------
    spectra : mapping
        Source → share of the power in equal slices of the band.
    nyquist : float or None
        Upper end of the band in Hz; None when runs differ.
    colours : mapping
        Source → colour.

    Returns
    -------
    str
        SVG.
    """
    with _drawing(4.2, 2.6) as (canvas, axes):
        for source, power in spectra.items():
            places = (np.arange(len(power)) + 0.5) / len(power) * (nyquist or 1.0)
            axes.plot(places, 100 * power, color=colours[source], lw=1.6)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        unit = "frequency (Hz)" if nyquist else "frequency (share of Nyquist)"
        axes.set(xlabel=unit, ylabel="% of power", xlim=(0, nyquist or 1.0))
        return _svg(canvas, "Power spectra of real and synthetic runs")


def draw_autocorrelation(lags: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> str:
    """Draw the autocorrelation at the first lags.

    Parameters
    ----------
    lags : mapping
        Source → ndarray, shape (n_lags,).
    colours : mapping
        Source → colour.

    Returns
    -------
    str
        SVG.
    """
    with _drawing(4.2, 2.6) as (canvas, axes):
        axes.axhline(0, color=_INK, lw=0.5, alpha=0.5)
        for source, values in lags.items():
            places = np.arange(1, len(values) + 1)
            axes.plot(places, values, color=colours[source], lw=1.6, marker="o", ms=4)
            axes.set_xticks(places)
        axes.set(xlabel="lag (volumes)", ylabel="autocorrelation")
        return _svg(canvas, "Autocorrelation of real and synthetic runs")


def draw_dots(
    values: Mapping[str, np.ndarray], unit: str, colours: Mapping[str, str], label: str
) -> str:
    """Draw one dot for each run, a row for each source.

    Parameters
    ----------
    values : mapping
        Source → ndarray, shape (n_runs,).
    unit : str
        Name and unit of the values.
    colours : mapping
        Source → colour.
    label : str
        Description for screen readers.

    Returns
    -------
    str
        SVG.
    """
    rng = np.random.default_rng(0)
    with _drawing(4.2, 0.8 + 0.38 * len(values)) as (canvas, axes):
        for row, (source, runs) in enumerate(values.items()):
            found = runs[np.isfinite(runs)]
            spread = row + rng.uniform(-0.22, 0.22, len(found))
            axes.plot(found, spread, ".", ms=4, color=colours[source], alpha=0.55, mew=0)
            if len(found):
                axes.plot([np.median(found)] * 2, [row - 0.34, row + 0.34], color=_INK, lw=1.5)
        axes.set_yticks(range(len(values)), list(values))
        axes.set(ylim=(len(values) - 0.5, -0.5), xlabel=unit)
        axes.tick_params(axis="y", length=0)
        return _svg(canvas, label)


@contextmanager
def _drawing(width: float, height: float) -> Iterator[tuple[Canvas, Axes]]:
    """Make one axes in the report's style; sizes in inches."""
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(width, height), layout="constrained")
        yield canvas, canvas.add_subplot()


def _svg(canvas: Canvas, label: str) -> str:
    """Write a drawing as inline SVG that scales with its place and uses the page's ink."""
    stream = io.StringIO()
    canvas.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    body = text[text.index("<svg") :].replace(_INK, "currentColor")
    opening, _, rest = body.partition(">")
    opening = f'{opening} role="img" aria-label="{escape(label)}"'
    # The metadata block names the writer and is of no use in a page.
    before, found, after = rest.partition("<metadata>")
    if found:
        rest = before + after.partition("</metadata>")[2]
    return f"{opening}>{rest}"


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
