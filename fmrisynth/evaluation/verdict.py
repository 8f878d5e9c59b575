"""The rules by which a figure passes, and by how much it falls short."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fmrisynth.evaluation.resampling import Figure

__all__ = ["RULES", "Judgement", "Rule", "judge"]

Margin = Callable[[Figure, Figure | None], float]


@dataclass(frozen=True)
class Rule:
    """What is asked of one figure.

    Attributes
    ----------
    metric : str
        Name of the figure.
    label : str
        Its name in the report.
    asked : str
        The rule in words.
    margin : callable
        The figure, and the same figure of real data as its own generator (or
        None) → by how much the rule is met (negative: by how much it is
        missed; NaN: it cannot be judged).
    """

    metric: str
    label: str
    asked: str
    margin: Margin


@dataclass(frozen=True)
class Judgement:
    """One row of the verdict.

    Attributes
    ----------
    rule : Rule
        What was asked.
    figure : Figure
        What was found.
    margin : float
        By how much it is met; NaN when it cannot be judged.
    """

    rule: Rule
    figure: Figure
    margin: float

    @property
    def passed(self) -> bool | None:
        """Whether the rule is met; None when it cannot be judged."""
        return None if not np.isfinite(self.margin) else self.margin >= 0


def _share_of_ceiling(share: float) -> Margin:
    return lambda figure, _: figure.value - share * figure.ceiling


def _near_one(tolerance: float) -> Margin:
    return lambda figure, _: tolerance - abs(figure.value - 1.0)


def _at_least(least: float, widest: float) -> Margin:
    """Ask for a least value, where the interval is narrow enough to tell."""

    def margin(figure: Figure, _: Figure | None) -> float:
        width = figure.high - figure.low
        return figure.value - least if width <= widest else math.nan

    return margin


def _at_most(most: float) -> Margin:
    return lambda figure, _: most - figure.value


def _between_ceilings(tolerance: float) -> Margin:
    """Ask for a value between the ceiling and the retest, give or take a tolerance.

    Maps of other people are less like the held-out ones than maps of the same
    people would be; a generator may stand anywhere between the two.
    """

    def margin(figure: Figure, retest: Figure | None) -> float:
        again = figure.ceiling if retest is None else retest.value
        least, most = min(figure.ceiling, again), max(figure.ceiling, again)
        if not least > 0:
            return math.nan
        return min(figure.value / least - (1 - tolerance), (1 + tolerance) - figure.value / most)

    return margin


def _like_chance(most: float) -> Margin:
    def margin(figure: Figure, _: Figure | None) -> float:
        within = 0.5 - figure.low if math.isfinite(figure.low) else -math.inf
        return max(most - figure.value, within)

    return margin


RULES = (
    Rule("corr", "Activation maps (Corr)", "at least 0.9 of its ceiling", _share_of_ceiling(0.9)),
    Rule("rsa", "Structure between conditions (RSA)", "at least 0.85 of its ceiling",
         _share_of_ceiling(0.85)),
    Rule("top1", "Condition recognised (Top-1)", "no lower than its ceiling",
         _share_of_ceiling(1.0)),
    Rule("slope", "Effect size (slope)",
         "within 20 % of its ceiling, or of the same people scanned again", _between_ceilings(0.2)),
    Rule("temporal_sd_ratio", "Temporal SD, synthetic / real", "within 10 % of 1", _near_one(0.1)),
    Rule("lag1_ratio", "Lag-1 autocorrelation, synthetic / real", "within 10 % of 1",
         _near_one(0.1)),
    Rule("fwhm_ratio", "Smoothness (FWHM), synthetic / real", "within 10 % of 1", _near_one(0.1)),
    Rule("diversity_participants_ratio", "Differences between participants, synthetic / real",
         "at least 0.5 (where real participants differ beyond noise)", _at_least(0.5, widest=2.0)),
    Rule("copied_share", "Runs copied from training runs", "none", _at_most(0.0)),
    Rule("membership_auc", "Training runs told from held-out ones (AUC)",
         "at most 0.6, or 0.5 within the interval", _like_chance(0.6)),
)  # fmt: skip
"""The rules of the verdict, in the order of the table."""


def judge(
    figures: Mapping[str, Figure], real: Mapping[str, Figure] | None = None
) -> tuple[Judgement, ...]:
    """Apply every rule to a generator's figures.

    Parameters
    ----------
    figures : mapping
        Metric → Figure.
    real : mapping, optional
        The figures of real data as its own generator (split halves).

    Returns
    -------
    tuple of Judgement
        For the rules whose figure exists.
    """
    real = real or {}
    return tuple(
        Judgement(
            rule,
            figures[rule.metric],
            float(rule.margin(figures[rule.metric], real.get(rule.metric))),
        )
        for rule in RULES
        if rule.metric in figures
    )
