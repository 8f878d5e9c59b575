"""Hold the skill of a model: what each part adds to the prediction of unseen participants."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmrisynth.runtime.files import write_bytes

__all__ = ["SKILL_NAME", "Skill", "read_skill", "write_skill"]

SKILL_NAME = "skill.tsv"


@dataclass(frozen=True)
class Skill:
    """Gain of one part at one angle over participants.

    Attributes
    ----------
    theta : float
        Angle.
    part : str
        What is added.
    gain : float
        Loss that the part takes away, per latent value; the loss of "nothing" is about 1.
    ci_low, ci_high : float
        95 % t-interval over participants; NaN for a single one.
    """

    theta: float
    part: str
    gain: float
    ci_low: float
    ci_high: float


def write_skill(path: Path, skill: Sequence[Skill]) -> None:
    """Write skill.tsv with the columns theta, part, gain, ci_low, ci_high, atomically."""
    stream = io.StringIO()
    table = csv.writer(stream, delimiter="\t", lineterminator="\n")
    table.writerow(["theta", "part", "gain", "ci_low", "ci_high"])
    for row in skill:
        numbers = [
            f"{x:.6f}" if math.isfinite(x) else "n/a" for x in (row.gain, row.ci_low, row.ci_high)
        ]
        table.writerow([f"{row.theta:.4f}", row.part, *numbers])
    write_bytes(path, stream.getvalue().encode())


def read_skill(path: Path) -> tuple[Skill, ...]:
    """Read skill.tsv; empty where there is none."""
    if not path.is_file():
        return ()
    with open(path, newline="", encoding="utf-8") as stream:
        return tuple(
            Skill(
                float(row["theta"]),
                row["part"],
                *(
                    math.nan if row[name] == "n/a" else float(row[name])
                    for name in ("gain", "ci_low", "ci_high")
                ),
            )
            for row in csv.DictReader(stream, delimiter="\t")
        )
