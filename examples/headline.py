"""Print the headline figures of a group report: ``python examples/headline.py metrics.tsv``."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

HEADLINE = ("corr", "rsa", "top1", "slope", "temporal_sd_ratio", "lag1_ratio", "fwhm_ratio")
COLUMNS = ("metric", "generator", "value", "ci_low", "ci_high", "ceiling", "floor")


def headline_rows(path: Path) -> list[list[str]]:
    """Rows of the headline metrics, numbers to three decimals, in the order of `HEADLINE`.

    Parameters
    ----------
    path : Path
        ``group/metrics.tsv`` of an output directory.

    Returns
    -------
    list of list of str
        One row per metric and generator, in the columns of `COLUMNS`.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        [row["metric"], row["generator"], *(_short(row[name]) for name in COLUMNS[2:])]
        for metric in HEADLINE
        for row in rows
        if row["metric"] == metric
    ]


def _short(number: str) -> str:
    return number if number == "n/a" else f"{float(number):.3f}"


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Align rows under their header: names to the left, numbers to the right."""
    table = [COLUMNS, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    lines = []
    for row in table:
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(names + numbers))
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/headline.py OUTPUT_DIR/group/metrics.tsv")
    print(as_table(headline_rows(Path(sys.argv[1]))))
