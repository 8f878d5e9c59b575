"""Put into words what readers of a comparison must know about its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmrisynth.evaluation.cohort.sources import MOST_SAMPLES, Matched
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["say_dependent", "say_samples", "say_skipped"]

_MOST_LISTED = 10
"""Skipped runs that are listed; `fmrisynth.evaluation.result.Evaluation.skipped` holds all."""


def say_skipped(skipped: Mapping[Path, str]) -> list[str]:
    """Say which runs are missing."""
    if not skipped:
        return []
    listed = [f"{path.name}: {why}" for path, why in skipped.items()][:_MOST_LISTED]
    more = f"; and {len(skipped) - len(listed)} more" if len(skipped) > len(listed) else ""
    return [
        f"{len(skipped)} run{'s' if len(skipped) > 1 else ''} could not be used and "
        f"{'are' if len(skipped) > 1 else 'is'} left out of every estimate: "
        f"{'; '.join(listed)}{more}."
    ]


def say_samples(matched: Matched) -> list[str]:
    """Say what is done with several samples of a run, and which generators have a single one."""
    notices, single = [], []
    for name, groups in matched.samples.items():
        number = matched.n_samples(name)
        if number > 1:
            notices.append(
                f"{name} wrote several samples of each run. Its figures are means over {number} "
                "of them, and their intervals are over participants and samples; maps and "
                "pictures show the first. All are of one training."
            )
        elif groups:
            notices.append(
                f"{name} wrote several samples of some runs and one of others. The first of each "
                f"is compared with the real run; up to {MOST_SAMPLES} are compared with each other."
            )
        else:
            single.append(name)
    if single:
        notices.append(
            f"Each run of {', '.join(single)} is a single draw, of one training. Intervals "
            "are over participants and hold neither source of chance: see how much figures move "
            "with --n-samples, and beside trainings with other seeds (--compare)."
        )
    return notices


def say_dependent(records: Sequence[RunRecord | None]) -> list[str]:
    """Name the trial types whose effects cannot be told from those of others."""
    counts = Counter(
        f"{record.run.task}/{name}" for record in records if record for name in record.dependent
    )
    if not counts:
        return []
    listed = ", ".join(f"{name} (in {count} runs)" for name, count in sorted(counts.items()))
    return [
        f"Other trial types add up to these, so that they have no effect of their own and are left "
        f"out of every estimate: {listed}."
    ]
