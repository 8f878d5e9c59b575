"""Rules: what passes, what is missed, what cannot be judged."""

from __future__ import annotations

import pytest

from fmrisynth.evaluation.metrics.estimate import Estimate
from fmrisynth.evaluation.metrics.verdict import count, judge


@pytest.mark.parametrize(
    ("metric", "figure", "passed"),
    [
        ("corr", Estimate(0.9, ceiling=1.0), True),
        ("corr", Estimate(0.89, ceiling=1.0), False),
        ("corr", Estimate(0.9), None),
        ("top1", Estimate(1.0, ceiling=1.0), True),
        ("top1", Estimate(6 / 7, ceiling=1.0), False),
        ("slope", Estimate(1.1, ceiling=1.0), True),
        ("slope", Estimate(1.25, ceiling=1.0), False),
        ("slope", Estimate(0.75, ceiling=1.0), False),
        ("lag1_ratio", Estimate(0.91), True),
        ("lag1_ratio", Estimate(1.11), False),
        ("copied_share", Estimate(0.0), True),
        ("copied_share", Estimate(0.01), False),
        ("membership_auc", Estimate(0.6, low=0.45, high=0.9), True),
        ("membership_auc", Estimate(0.7, low=0.45, high=0.9), None),
        ("membership_auc", Estimate(0.7, low=0.6, high=0.8), False),
    ],
)
def test_rules(metric, figure, passed):
    judgement = verdict_of(metric, figure)
    assert judgement.passed is passed
    assert bool(judgement.reason) == (passed is None)


def verdict_of(metric, figure, retest=None):
    found = judge({metric: figure}, {} if retest is None else {metric: retest})
    return next(j for j in found if j.metric.name == metric)


@pytest.mark.parametrize(
    ("slope", "retest", "passed"),
    [
        (0.48, None, True),  # 0.8 of the ceiling of 0.6
        (0.47, None, False),
        (0.72, None, True),  # 1.2 of it
        (0.73, None, False),
        (0.73, 0.3, False),  # the same participants have less than other participants: 1.2 stays
        (0.9, 0.85, True),  # 2 · .85 / 1.85 = .92 between whole sets of runs
        (1.05, 0.85, False),
    ],
)
def test_effects_are_as_large_as_other_participants_or_those_of_the_same(slope, retest, passed):
    retest = None if retest is None else Estimate(retest)
    assert verdict_of("slope", Estimate(slope, ceiling=0.6), retest).passed is passed


def test_what_cannot_be_judged_says_why():
    for judgement in judge({}):
        assert judgement.passed is None
        assert judgement.reason.startswith("this needs ")
    assert "no ceiling" in verdict_of("rsa", Estimate(0.5)).reason
    wide = Estimate(0.3, low=-0.2, high=0.8, ceiling=1.0)
    assert "too few participants" in verdict_of("diversity_participants_ratio", wide).reason
    chance = Estimate(0.51, low=0.05, high=0.98, ceiling=0.63)
    assert "0.51 and 0.54 is asked" in verdict_of("rsa", chance).reason
    assert verdict_of("corr", chance).passed is False  # Corr is no noisy figure
    narrow = Estimate(0.3, low=0.2, high=0.4, ceiling=1.0)
    assert verdict_of("diversity_participants_ratio", narrow).passed is False


@pytest.mark.parametrize(
    ("estimate", "retest", "passed"),
    [
        # Scanned again, the same participants would have 2 · .8 / 1.8 = .89.
        (Estimate(0.95, low=0.91, high=0.98, ceiling=0.7), Estimate(0.8, low=0.7), False),
        (Estimate(0.95, low=0.85, high=0.98, ceiling=0.7), Estimate(0.8, low=0.7), True),
        (Estimate(0.95, low=0.91, high=0.98, ceiling=0.93), Estimate(0.8, low=0.7), True),
        # Halves of the participants say nothing of a retest.
        (Estimate(0.95, low=0.91, high=0.98, ceiling=0.7), Estimate(0.8), True),
    ],
)
def test_maps_with_less_noise_than_real_ones_fail(estimate, retest, passed):
    assert verdict_of("corr", estimate, retest).passed is passed


@pytest.mark.parametrize("metric", ["diversity_participants_ratio", "diversity_runs_ratio"])
def test_too_much_variance_is_a_fault_as_too_little_is(metric):
    assert verdict_of(metric, Estimate(3.0, low=2.2, high=3.9)).passed is False
    assert verdict_of(metric, Estimate(3.0, low=1.5, high=4.5)).passed is None
    assert verdict_of(metric, Estimate(1.8, low=0.9, high=3.0)).passed is True


def test_what_is_so_by_construction_is_not_judged():
    judgement = verdict_of("temporal_sd_ratio", Estimate(1.0, by_construction="it was given"))
    assert judgement.passed is None
    assert "by construction: it was given" in judgement.reason


def test_rules_are_counted_by_outcome():
    estimates = {"corr": Estimate(0.9, ceiling=1.0), "lag1_ratio": Estimate(2.0)}
    found = judge(estimates)
    tally = count(found)
    assert (tally.met, tally.missed) == (1, 1)
    assert tally.not_judged == len(found) - 2 > 5


def test_own_maps_are_asked_for_where_real_participants_can_be_told_apart():
    made = Estimate(0.25, ceiling=0.3)
    apart, alike = Estimate(0.3, low=0.2, floor=0.0), Estimate(0.3, low=-0.1, floor=0.0)
    assert verdict_of("individual_correlation", made, apart).passed is False
    assert "cannot be told apart" in verdict_of("individual_correlation", made, alike).reason
    assert verdict_of("individual_correlation", Estimate(0.26, ceiling=0.3), apart).passed is True


def test_participants_taken_for_each_other_fail_whatever_the_ceiling():
    """Exchanged runs are most like those of somebody else: the floor is above the ceiling."""
    apart = Estimate(0.3, low=0.2, floor=0.0)
    exchanged = Estimate(0.04, low=0.01, ceiling=0.05, floor=0.12)
    assert verdict_of("individual_correlation", exchanged, apart).passed is False
