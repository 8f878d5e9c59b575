"""Provide the kinds of rules by which an estimate passes, and by how much it falls short."""

from __future__ import annotations

import math

from fmrisynth.evaluation.metrics.estimate import Estimate
from fmrisynth.evaluation.metrics.metric import Margin

__all__ = [
    "BOTH_GROUPS",
    "TWO_RUNS",
    "as_large_as_real_effects",
    "at_most",
    "between",
    "like_chance",
    "little_above_ceiling",
    "near_one",
    "share_of_ceiling",
    "share_of_retest",
    "share_where_runs_agree",
]

TWO_RUNS = "two runs of each condition of every participant, and two participants"
BOTH_GROUPS = "real training participants beside the held-out ones"
"""What several rules need of a dataset."""

_NO_CEILING = "there is no ceiling, since there are no real training participants to make one of"


def share_of_ceiling(share: float, *, noisy: bool = False, at_most_retest: bool = False) -> Margin:
    """Ask for a share of the ceiling.

    A noisy metric rests on few pairs of conditions or on few decisions, so
    that real data themselves fall below by chance; it fails only where its
    interval does not reach what is asked.

    The ceiling is what *other* real participants have and no bound: a
    correlation with the real maps can be too large as well, where synthetic
    maps have less noise than real ones. At most, the same participants scanned
    again agree as much: the correlation r of halves of their runs becomes
    2r / (1 + r) between whole sets of runs (Spearman 1910; Brown 1910).
    """

    def margin(estimate: Estimate, retest: Estimate | None) -> float | str:
        if not math.isfinite(estimate.ceiling):
            return _NO_CEILING
        if not estimate.ceiling > 0:
            return "real participants do not agree with each other here: the ceiling is not above 0"
        least = share * estimate.ceiling
        reason = _cannot_tell(estimate, least, math.inf) if noisy else ""
        if reason:
            return reason
        # Without an interval, the retest rests on halves of the participants, not of their runs.
        if at_most_retest and retest is not None and math.isfinite(retest.low) and retest.value > 0:
            most = max(estimate.ceiling, 2 * retest.value / (1 + retest.value))
            if estimate.low > most:
                return most - estimate.value
        return estimate.value - least

    return margin


def share_where_runs_agree(share: float) -> Margin:
    """Ask for a share of the ceiling, where halves of the real runs agree beyond chance."""
    asked = share_of_ceiling(share, noisy=True)

    def margin(estimate: Estimate, retest: Estimate | None) -> float | str:
        if retest is None or not retest.low > max(retest.floor, 0.0):
            return (
                "one half of the real runs does not agree with the other beyond chance: there is "
                "nothing of the kind in them, or too little data"
            )
        return asked(estimate, retest)

    return margin


def near_one(tolerance: float) -> Margin:
    """Ask for a ratio near 1, from both sides."""
    return lambda estimate, _: tolerance - abs(estimate.value - 1.0)


def between(least: float, most: float) -> Margin:
    """Ask for a value in a range; outside it fails where its interval does not reach the range."""

    def margin(estimate: Estimate, _: Estimate | None) -> float | str:
        outside = min(estimate.value - least, most - estimate.value)
        return _cannot_tell(estimate, least, most) or outside

    return margin


def at_most(most: float) -> Margin:
    """Ask for a largest value."""
    return lambda estimate, _: most - estimate.value


def as_large_as_real_effects(tolerance: float, above_retest: float) -> Margin:
    """Ask for effects as large as those of real participants.

    The ceiling is the slope of *other* participants' maps. A generator that
    knows the held-out participants' own responses may have more, as the same
    participants scanned again would: the slope b between halves of their runs
    becomes 2b / (1 + b) between whole sets of runs (half the noise in the
    reference).
    """

    def margin(estimate: Estimate, retest: Estimate | None) -> float | str:
        if not math.isfinite(estimate.ceiling):
            return _NO_CEILING
        if not estimate.ceiling > 0:
            return "real participants have no effect in common here: the ceiling is not above 0"
        most = (1 + tolerance) * estimate.ceiling
        if retest is not None and retest.value > 0:
            most = max(most, (1 + above_retest) * 2 * retest.value / (1 + retest.value))
        least = (1 - tolerance) * estimate.ceiling
        return min(estimate.value - least, most - estimate.value) / estimate.ceiling

    return margin


def share_of_retest(share: float, most: float = math.inf) -> Margin:
    """Ask for a share of the ceiling above the floor, where real participants can be told apart.

    The floor is what participants taken for each other have: what all have in common is nobody's
    own. More than `most` times the ceiling is too much, where the interval lies above it.
    """

    def margin(estimate: Estimate, retest: Estimate | None) -> float | str:
        if not math.isfinite(estimate.ceiling):
            return "real participants have not done any condition twice, so there is no retest"
        apart = retest is not None and retest.low > max(retest.floor, 0.0)
        if not apart or not estimate.ceiling > 0:
            return (
                "the real participants themselves cannot be told apart by this metric (its "
                "interval on real data reaches its floor): too few of them, or too little data "
                "of each"
            )
        floor = max(estimate.floor, 0.0) if math.isfinite(estimate.floor) else 0.0
        own = max(estimate.ceiling - floor, 0.0)
        if estimate.low > floor + most * own:
            return floor + most * own - estimate.value
        return estimate.value - floor - share * own

    return margin


def little_above_ceiling(more: float) -> Margin:
    """Ask for a value that exceeds that of real data by little."""

    def margin(estimate: Estimate, _: Estimate | None) -> float | str:
        if not math.isfinite(estimate.ceiling):
            return "there are no real runs of the same task to compare with"
        return estimate.ceiling + more - estimate.value

    return margin


def like_chance(most: float) -> Margin:
    """Ask for a largest value; a larger one fails where its interval does not reach 0.5."""

    def margin(estimate: Estimate, _: Estimate | None) -> float | str:
        if estimate.value > most and not estimate.low > 0.5:
            return (
                f"too few participants to tell: it is {estimate.value:.2f}, but its interval "
                f"begins at {estimate.low:.2f}, so that it may be chance"
            )
        return most - estimate.value

    return margin


def _cannot_tell(estimate: Estimate, least: float, most: float) -> str:
    """Say that a value outside of a range may be so by chance; empty when it cannot be."""
    if estimate.value < least <= estimate.high:
        asked = least
    elif estimate.low <= most < estimate.value:
        asked = most
    else:
        return ""
    return (
        f"too few participants to tell: it is {estimate.value:.2f} and {asked:.2f} is asked, but "
        f"its interval, {estimate.low:.2f} to {estimate.high:.2f}, reaches that"
    )
