"""Make the template environment that all pages share."""

from __future__ import annotations

import math

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["environment", "number"]


def environment(*, escape: bool = True) -> Environment:
    """Make the template environment: what is not markup is escaped, unless it is for plain text."""
    environment = Environment(
        loader=PackageLoader("fmrisynth.reports"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment


def number(value: float, digits: int = 2) -> str:
    """Format a number with a fixed number of decimals; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")
