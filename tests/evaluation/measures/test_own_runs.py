"""Single runs of participants: leave-one-out likeness, and the bound on it."""

import numpy as np
import pytest

from fmrisynth.evaluation.measures.own_runs import (
    _components,
    deviations,
    group_of,
    likeness,
    reachable,
)

P, B, SIGNAL = 24, 300, 0.6
GROUP = np.random.default_rng(0).normal(size=(2, B))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def true_maps(rng, rank, count=P):
    """Deviations of two conditions of participants, in a few directions that all have."""
    axes = np.random.default_rng(1).normal(size=(rank, B))
    return SIGNAL * rng.normal(size=(count, 2, rank)) @ axes / rank**0.5


def runs_of(true, rng, n_runs=2, noise=1.0):
    """Maps of runs about the group's, with noise."""
    return [
        [
            5 * g + own + noise * rng.normal(size=(n_runs, B))
            for g, own in zip(GROUP, one, strict=True)
        ]
        for one in true
    ]


def diagonal(matrix):
    return float(np.diag(matrix).mean())


def without_group(*cohorts):
    group = group_of(cohorts[0])
    return [deviations(maps, group) for maps in cohorts]


def test_runs_are_like_their_participants_other_runs_alone(rng):
    (real,) = without_group(runs_of(true_maps(rng, 10), rng))
    retest = likeness(real, real, same=False)
    expected = SIGNAL**2 / (SIGNAL**2 + 1)
    assert diagonal(retest) == pytest.approx(expected, rel=0.15)
    others = retest[~np.eye(P, dtype=bool)]
    assert abs(others.mean()) < 0.05
    assert diagonal(likeness(real, real, same=True)) == pytest.approx(1)


@pytest.mark.parametrize(("rank", "more"), [(4, 1.6), (12, 1.2)])
def test_the_posterior_of_the_true_variances_reaches_the_bound(rng, rank, more):
    """Synthetic runs are drawn from it, given the participant's other run."""
    true, learned = true_maps(rng, rank), true_maps(rng, rank, 40)
    runs = runs_of(true, rng)
    axes = np.random.default_rng(1).normal(size=(rank, B)) * SIGNAL / rank**0.5
    gain = axes.T @ np.linalg.inv(axes @ axes.T + np.eye(rank)) @ axes  # of the posterior mean
    spread = np.linalg.cholesky(np.linalg.inv(axes @ axes.T + np.eye(rank)))
    synthetic = [
        [
            np.array(
                [
                    5 * g
                    + gain @ (maps[1 - r] - 5 * g)
                    + spread @ rng.normal(size=rank) @ axes
                    + rng.normal(size=B)
                    for r in (0, 1)
                ]
            )
            for g, maps in zip(GROUP, one, strict=True)
        ]
        for one in runs
    ]
    real, training, made = without_group(runs, runs_of(learned, rng), synthetic)
    bound = reachable(real, training)
    retest = diagonal(likeness(real, real, same=False))
    reached = diagonal(likeness(made, real, same=True))
    assert bound < retest
    # components are learned from noisy runs: the bound is a little low
    assert 0.85 * bound < reached < 1.5 * bound
    # what raw maps reveal, R², is less than what components reveal, where there are few
    assert bound > more * retest**2
    # the run that was known is more alike: it must not be what is compared with
    assert diagonal(likeness(made, real, same=False)) > reached


def test_noise_allows_nothing(rng):
    real, training = without_group(
        runs_of(np.zeros((P, 2, B)), rng), runs_of(np.zeros((P, 2, B)), rng)
    )
    assert reachable(real, training) < 0.01


def test_single_runs_have_no_bound(rng):
    (real,) = without_group(runs_of(true_maps(rng, 4), rng, n_runs=1))
    assert np.isnan(reachable(real, None))
    assert np.isnan(likeness(real, real, same=False)).all()


def test_without_training_participants_maps_foretell_as_they_are(rng):
    (real,) = without_group(runs_of(true_maps(rng, 10), rng))
    retest = diagonal(likeness(real, real, same=False))
    assert reachable(real, None) == pytest.approx(retest**2, rel=0.05)


def test_pairs_of_runs_are_compared_one_by_one(rng):
    """Participants have different numbers of runs, and some lack a condition."""
    numbers = rng.integers(0, 4, size=(5, 3))
    cohort = [[rng.normal(size=(n, 20)) for n in row] for row in numbers]
    for same in (False, True):
        found = likeness(cohort, cohort, same=same)
        for p, one in enumerate(cohort):
            for q, other in enumerate(cohort):
                values = [
                    np.corrcoef(a, b)[0, 1]
                    for first, second in zip(one, other, strict=True)
                    for i, a in enumerate(first)
                    for j, b in enumerate(second)
                    if (i == j) == same
                ]
                expected = np.mean(values) if values else np.nan
                assert found[p, q] == pytest.approx(expected, nan_ok=True)


def test_components_are_the_same_from_either_side(rng):
    """Of more maps than supervoxels they are found among the supervoxels."""
    axes = rng.normal(size=(3, 40))
    maps = rng.normal(size=(60, 3)) @ axes + 0.1 * rng.normal(size=(60, 40))
    few, many = [[maps[:30]]], [[maps]]
    for cohort, pooled in ((few, maps[:30]), (many, maps)):
        variance, found = _components(cohort)
        np.testing.assert_allclose(found @ found.T, np.eye(len(found)), atol=1e-6)
        np.testing.assert_allclose(variance, np.square(pooled @ found.T).sum(axis=0), rtol=1e-6)
