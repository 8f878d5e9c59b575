"""The rules by which a figure passes, and by how much it falls short."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fmrisynth.evaluation.measures.resampling import NAN, Figure

__all__ = ["RULES", "Judgement", "Rule", "judge"]

Margin = Callable[[Figure, Figure | None], float | str]

_NO_CEILING = "there is no ceiling, since there are no real training people to make one of"


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
        missed), or why it cannot be judged.
    needs : str
        What a dataset must have for the figure to exist.
    optional : bool
        Not listed where the figure does not exist.
    """

    metric: str
    label: str
    asked: str
    margin: Margin
    needs: str
    optional: bool = False


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
    reason : str
        Why it cannot be judged; empty when it can.
    """

    rule: Rule
    figure: Figure
    margin: float
    reason: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the rule is met; None when it cannot be judged."""
        return None if self.reason else self.margin >= 0


def _cannot_tell(figure: Figure, least: float) -> str:
    """Say that a value below what is asked may be so by chance; empty when it cannot be."""
    if not figure.value < least <= figure.high:
        return ""
    return (
        f"too few participants to tell: it is {figure.value:.2f} and {least:.2f} is asked, but "
        f"its interval, {figure.low:.2f} to {figure.high:.2f}, reaches that"
    )


def _share_of_ceiling(share: float, *, noisy: bool = False) -> Margin:
    """Ask for a share of the ceiling.

    A noisy figure rests on few pairs of conditions or on few decisions, so
    that real data themselves fall below by chance; it fails only where its
    interval does not reach what is asked.
    """

    def margin(figure: Figure, _: Figure | None) -> float | str:
        if not math.isfinite(figure.ceiling):
            return _NO_CEILING
        if not figure.ceiling > 0:
            return "real people do not agree with each other here: the ceiling is not above 0"
        reason = _cannot_tell(figure, share * figure.ceiling) if noisy else ""
        return reason or figure.value - share * figure.ceiling

    return margin


def _near_one(tolerance: float) -> Margin:
    return lambda figure, _: tolerance - abs(figure.value - 1.0)


def _at_least(least: float) -> Margin:
    """Ask for a least value; below it, say so only where the interval does not reach it."""

    def margin(figure: Figure, _: Figure | None) -> float | str:
        return _cannot_tell(figure, least) or figure.value - least

    return margin


def _at_most(most: float) -> Margin:
    return lambda figure, _: most - figure.value


def _as_effects(tolerance: float, above_retest: float) -> Margin:
    """Ask for effects as large as those of real people.

    The ceiling is the slope of *other* people's maps. A generator that knows
    the held-out people's own responses may have more, as the same people
    scanned again would: the slope b between halves of their runs becomes
    2b / (1 + b) between whole sets of runs (half the noise in the reference).
    """

    def margin(figure: Figure, retest: Figure | None) -> float | str:
        if not math.isfinite(figure.ceiling):
            return _NO_CEILING
        if not figure.ceiling > 0:
            return "real people have no effect in common here: the ceiling is not above 0"
        most = (1 + tolerance) * figure.ceiling
        if retest is not None and retest.value > 0:
            most = max(most, (1 + above_retest) * 2 * retest.value / (1 + retest.value))
        least = (1 - tolerance) * figure.ceiling
        return min(figure.value - least, most - figure.value) / figure.ceiling

    return margin


def _of_own_people(share: float) -> Margin:
    """Ask for a share of the test-retest value, where real people can be told apart."""

    def margin(figure: Figure, retest: Figure | None) -> float | str:
        if not math.isfinite(figure.ceiling):
            return "real people have not done any condition twice, so there is no retest"
        apart = retest is not None and retest.low > max(retest.floor, 0.0)
        if not apart or not figure.ceiling > 0:
            return (
                "the real people themselves cannot be told apart by this figure (its interval "
                "on real data reaches its floor): too few of them, or too little data of each"
            )
        return figure.value - share * figure.ceiling

    return margin


def _little_above_ceiling(more: float) -> Margin:
    def margin(figure: Figure, _: Figure | None) -> float | str:
        if not math.isfinite(figure.ceiling):
            return "there are no real runs of the same task to compare with"
        return figure.ceiling + more - figure.value

    return margin


def _like_chance(most: float) -> Margin:
    def margin(figure: Figure, _: Figure | None) -> float:
        within = 0.5 - figure.low if math.isfinite(figure.low) else -math.inf
        return max(most - figure.value, within)

    return margin


_TWO_RUNS = "two runs of each condition of every participant, and two participants"
_BOTH = "real training participants beside the held-out ones"

RULES = (
    Rule("corr", "Activation maps (Corr)", "at least 0.9 of its ceiling", _share_of_ceiling(0.9),
         "a condition that varies over the brain"),
    Rule("rsa", "Structure between conditions (RSA)",
         "at least 0.85 of its ceiling, where the interval can tell",
         _share_of_ceiling(0.85, noisy=True), "three conditions"),
    Rule("top1", "Condition recognised (Top-1)",
         "no lower than its ceiling, where the interval can tell",
         _share_of_ceiling(1.0, noisy=True), "two conditions"),
    Rule("slope", "Effect size (slope)",
         "0.8 to 1.2 of its ceiling, the slope of other real people; more only if the same people "
         "scanned again have more, and then at most 1.1 of theirs",
         _as_effects(0.2, 0.1), "a condition that varies over the brain"),
    Rule("temporal_sd_ratio", "Temporal SD, synthetic / real", "within 10 % of 1", _near_one(0.1),
         "a task that synthetic and real runs share"),
    Rule("lag1_ratio", "Lag-1 autocorrelation, synthetic / real", "within 10 % of 1",
         _near_one(0.1), "a task that synthetic and real runs share"),
    Rule("fwhm_ratio", "Smoothness (FWHM), synthetic / real", "within 10 % of 1", _near_one(0.1),
         "a task that synthetic and real runs share"),
    Rule("course_correlation", "Responses in time (courses)",
         "at least 0.9 of its ceiling, where the interval can tell",
         _share_of_ceiling(0.9, noisy=True), "epochs of a condition within the runs"),
    Rule("individual_correlation", "Participants' own maps",
         "at least 0.5 of what the same people scanned again have", _of_own_people(0.5),
         _TWO_RUNS),
    Rule("diversity_participants_ratio", "Differences between participants, synthetic / real",
         "at least 0.5 (where real participants differ beyond noise)", _at_least(0.5),
         f"{_TWO_RUNS}, who differ beyond noise"),
    Rule("diversity_runs_ratio", "Differences between runs of a person, synthetic / real",
         "at least 0.5", _at_least(0.5), "two runs of a task of one participant"),
    Rule("diversity_samples_ratio",
         "Differences between samples of a run, as between runs of a real person",
         "at least 0.5", _at_least(0.5), "several samples of a run", optional=True),
    Rule("sample_similarity", "Runs of different people alike, beyond what is evoked",
         "at most 0.1 above real runs", _little_above_ceiling(0.1), _BOTH),
    Rule("fc_correlation", "Connectivity", "at least 0.8 of its ceiling", _share_of_ceiling(0.8),
         "a brain of at least 8 blocks of 12 mm"),
    Rule("fc_fingerprint", "A person's runs alike in connectivity", "at least 0.5 of the real one",
         _of_own_people(0.5), "two runs of two participants"),
    Rule("copied_share", "Runs copied from training runs", "none", _at_most(0.0), _BOTH),
    Rule("membership_auc", "Training runs told from held-out ones (AUC)",
         "at most 0.6, or 0.5 within the interval", _like_chance(0.6), _BOTH),
    Rule("decoding_synthetic", "Decoding of real runs, trained on synthetic ones",
         "at least 0.7 of its ceiling, as many real people, where the interval can tell",
         _share_of_ceiling(0.7, noisy=True),
         f"{_BOTH}, two held-out ones and two trial types"),
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
        One for each rule; where it cannot be judged, ``reason`` says why.
    """
    real = real or {}
    judgements = []
    for rule in RULES:
        figure = figures.get(rule.metric)
        if figure is None and rule.optional:
            continue
        judgements.append(_judged(rule, figure or Figure(NAN), real.get(rule.metric)))
    return tuple(judgements)


def _judged(rule: Rule, figure: Figure, real: Figure | None) -> Judgement:
    if not math.isfinite(figure.value):
        return Judgement(rule, figure, NAN, f"this needs {rule.needs}")
    margin = rule.margin(figure, real)
    if isinstance(margin, str):
        return Judgement(rule, figure, NAN, margin)
    if not math.isfinite(margin):
        return Judgement(rule, figure, NAN, "the figure or its ceiling is not finite")
    return Judgement(rule, figure, float(margin))
