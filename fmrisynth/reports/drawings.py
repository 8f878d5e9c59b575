"""Draw the charts of the reports as SVG.

They are inlined in the page and take their ink from it (``currentColor``), so
that they follow light, dark and print.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.ticker import FormatStrFormatter, NullFormatter

__all__ = [
    "COLOURS",
    "colour_of",
    "draw_autocorrelation",
    "draw_components",
    "draw_curves",
    "draw_dots",
    "draw_matrix",
    "draw_spectra",
    "draw_time_course",
    "draw_timeline",
]

_INK = "#010203"  # replaced by currentColor in the SVG

COLOURS = ("#2a84c6", "#d55e00", "#009e73", "#c96a9b", "#b8860b", "#56b4e9", "#8a7bd1", "#7f8a92")
"""Colours after Okabe and Ito, told apart by colour-blind readers and seen on light and dark
paper; the first is the real data's."""

_MOST_NAMED = 48  # rows of a matrix

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


def colour_of(index: int) -> str:
    """Colour of a source: 0 is the real data, then the generators in their order."""
    return COLOURS[index % len(COLOURS)]


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
    """Draw a square matrix, a small one with its values, a large one with some of its names.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        NaN cells stay empty.
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
        if n > _MOST_NAMED:  # as many shapes would take memory and time with their square
            image = axes.imshow(matrix, "viridis", extent=(0, n, n, 0), interpolation="none")
            image.set_clim(low, high)
        else:
            _draw_cells(axes, matrix, low, high)
        axes.set(xlim=(0, n), ylim=(n, 0), xlabel=columns, ylabel=rows, aspect="equal")
        named = range(0, n, -(-n // _MOST_NAMED))
        short, size = [_short(names[i]) for i in named], 8 if n <= 12 else 6
        axes.set_xticks(np.array(named) + 0.5, short, rotation=90, fontsize=size)
        axes.set_yticks(np.array(named) + 0.5, short, fontsize=size)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(canvas, label)


def _draw_cells(axes: Axes, matrix: np.ndarray, low: float, high: float) -> None:
    """Draw each cell as a shape of its own, with its number where there are few."""
    colours, shades = mpl.colormaps["viridis"], (matrix - low) / max(high - low, 1e-9)
    for i, j in np.argwhere(np.isfinite(matrix)):
        value, shade = matrix[i, j], float(np.clip(shades[i, j], 0, 1))
        axes.add_patch(Rectangle((j, i), 1, 1, color=colours(shade), lw=0))
        if len(matrix) <= 8:
            ink = "white" if shade < 0.6 else "black"
            text = f"{value:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1)
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", size=7, color=ink)


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
    times : ndarray of shape (S,)
        Time from the epoch's onset, in s.
    curves : mapping
        Source → ndarray of shape (P, S), in percent.
    prediction : ndarray of shape (S,)
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
                spread = np.nanstd(rows[:, seen], axis=0) * np.sqrt(len(rows) / (len(rows) - 1))
                error = 1.96 * spread / np.sqrt(len(rows))
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
        unit = "frequency (Hz)" if nyquist else "frequency (share of Nyquist)"
        axes.set(xlabel=unit, ylabel="% of power", xlim=(0, nyquist or 1.0), ylim=(0, None))
        return _svg(canvas, "Power spectra of real and synthetic runs")


def draw_autocorrelation(lags: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> str:
    """Draw the autocorrelation at the first lags.

    Parameters
    ----------
    lags : mapping
        Source → ndarray of shape (n_lags,).
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
    values: Mapping[str, np.ndarray],
    unit: str,
    colours: Mapping[str, str],
    label: str,
    limit: float = math.nan,
) -> str:
    """Draw one dot for each run, a row for each source.

    Parameters
    ----------
    values : mapping
        Source → ndarray of shape (n_runs,). Of very many, evenly spaced ranks
        are drawn, the smallest and the largest among them.
    unit : str
        Name and unit of the values.
    colours : mapping
        Source → colour.
    label : str
        Description for screen readers.
    limit : float
        Value marked by a dotted line; NaN for none.

    Returns
    -------
    str
        SVG.
    """
    rng = np.random.default_rng(0)
    with _drawing(4.2, 0.8 + 0.38 * len(values)) as (canvas, axes):
        for row, (source, runs) in enumerate(values.items()):
            dots = _thinned(runs[np.isfinite(runs)])
            spread = row + rng.uniform(-0.22, 0.22, len(dots))
            axes.plot(dots, spread, "o", ms=4, color=colours[source], alpha=0.6, mew=0)
            if len(dots):
                axes.plot([np.median(dots)] * 2, [row - 0.34, row + 0.34], color=_INK, lw=1.5)
        if math.isfinite(limit):
            axes.axvline(limit, color=_INK, lw=1, ls=":")
        axes.set_yticks(range(len(values)), [_short(source) for source in values])
        axes.set(ylim=(len(values) - 0.5, -0.5), xlabel=unit)
        axes.tick_params(axis="y", length=0)
        return _svg(canvas, label)


def draw_components(shares: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> str:
    """Draw how much of the variance the first spatial components hold.

    Parameters
    ----------
    shares : mapping
        Source → share of each component, in descending order.
    colours : mapping
        Source → colour.

    Returns
    -------
    str
        SVG.
    """
    with _drawing(4.2, 2.6) as (canvas, axes):
        for source, values in shares.items():
            held = 100 * np.cumsum(values)
            axes.plot(np.arange(1, len(held) + 1), held, color=colours[source], lw=1.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.set(xlabel="number of components", ylabel="% of variance", ylim=(0, 101))
        return _svg(canvas, "Variance held by spatial components")


def draw_curves(
    curves: Mapping[str, Sequence[np.ndarray]],
    colours: Mapping[str, str],
    chance: float,
) -> str:
    """Draw learning curves with their intervals.

    Parameters
    ----------
    curves : mapping
        Name → numbers of training participants, value, low and high end of the
        interval, four of shape (n_sizes,). The first curve has all numbers.
    colours : mapping
        Name → colour.
    chance : float
        Accuracy by guessing.

    Returns
    -------
    str
        SVG.
    """
    with _drawing(4.2, 2.6) as (canvas, axes):
        axes.axhline(100 * chance, color=_INK, lw=0.8, ls=":")
        for name, (sizes, value, low, high) in curves.items():
            axes.plot(sizes, 100 * value, color=colours[name], lw=1.6, marker="o", ms=4)
            axes.vlines(sizes, 100 * low, 100 * high, color=colours[name], alpha=0.4, lw=2)
        sizes = next(iter(curves.values()))[0]
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(sizes), [str(size) for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="real training participants", ylabel="trial types recognised (%)")
        return _svg(canvas, "Decoding by number of training participants")


def draw_timeline(
    events: Mapping[str, Sequence[tuple[float, float]]], duration: float, label: str
) -> str:
    """Draw the events of a run, a row for each trial type.

    Parameters
    ----------
    events : mapping
        Trial type → (onset, duration) of its events, in s.
    duration : float
        Length of the run, in s.
    label : str
        Description for screen readers.

    Returns
    -------
    str
        SVG.
    """
    with _drawing(7.0, 0.55 + 0.22 * len(events)) as (canvas, axes):
        for row, bars in enumerate(events.values()):
            # A brief event is drawn as long as can be seen.
            wide = [(onset, max(length, 0.004 * duration)) for onset, length in bars]
            axes.broken_barh(wide, (row - 0.35, 0.7), color=colour_of(row), lw=0)
        axes.set_yticks(range(len(events)), [_short(name) for name in events])
        axes.set(xlim=(0, duration), ylim=(len(events) - 0.5, -0.5), xlabel="s")
        axes.tick_params(axis="y", length=0)
        return _svg(canvas, label)


def _thinned(values: np.ndarray, most: int = 240) -> np.ndarray:
    if len(values) <= most:
        return values
    ranks = np.linspace(0, len(values) - 1, most).round().astype(int)
    return np.sort(values)[ranks]


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"


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
    before, metadata, after = rest.partition("<metadata>")
    if metadata:
        rest = before + after.partition("</metadata>")[2]
    return f"{opening}>{rest}"
