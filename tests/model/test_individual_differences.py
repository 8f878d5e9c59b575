"""Individual differences: reliable ones are estimated, measurement noise is not."""

import pytest
import torch

from fmrisynth.model.individual_differences import (
    draw_difference,
    individual_components,
    split_halves,
)

PARTICIPANTS, SHAPE = 40, (6, 4)
ONE_GROUP = torch.zeros(SHAPE, dtype=torch.int64)


def measured(true, noise, seed=0):
    """Two noisy measurements of each participant's true value."""
    generator = torch.Generator().manual_seed(seed)
    return [true + noise * torch.randn(true.shape, generator=generator) for _ in range(2)]


def true_differences(seed=1):
    """Differences of unit variance in the first three rows; nothing in the others."""
    true = torch.randn(PARTICIPANTS, *SHAPE, generator=torch.Generator().manual_seed(seed))
    true[:, 3:] = 0
    return true


def variance(components, count=4000):
    return torch.stack([draw_difference(components, p) for p in range(count)]).square().mean(0)


def test_synthetic_participants_differ_as_much_as_those_learned_from():
    true = true_differences()
    for noise in (0.0, 0.5, 1.0):
        components = individual_components(*measured(true, noise), ONE_GROUP, PARTICIPANTS)
        assert float(variance(components).mean()) == pytest.approx(0.5, rel=0.25), noise


def test_each_group_of_elements_has_its_own_reliability():
    rows = torch.arange(SHAPE[0])[:, None].expand(SHAPE)
    drawn = variance(individual_components(*measured(true_differences(), 1.0), rows, PARTICIPANTS))
    assert float(drawn[:3].mean()) == pytest.approx(1, rel=0.25)
    assert float(drawn[3:].mean()) < 0.15


def test_noise_alone_makes_no_differences():
    components = individual_components(
        *measured(torch.zeros(PARTICIPANTS, *SHAPE), 1.0), ONE_GROUP, PARTICIPANTS
    )
    assert float(variance(components).mean()) < 0.15


def test_correlated_differences_stay_correlated():
    shared = torch.randn(PARTICIPANTS, 1, 1, generator=torch.Generator().manual_seed(3))
    components = individual_components(
        *measured(shared.expand(PARTICIPANTS, *SHAPE), 0.3), ONE_GROUP, 4
    )
    drawn = torch.stack([draw_difference(components, p) for p in range(500)]).flatten(1)
    assert float(torch.corrcoef(drawn.T).min()) > 0.7


def test_a_seed_draws_the_same_difference_again():
    components = individual_components(*measured(true_differences(), 0.3), ONE_GROUP, 8)
    assert torch.equal(draw_difference(components, 5), draw_difference(components, 5))
    assert not torch.equal(draw_difference(components, 5), draw_difference(components, 6))


@pytest.mark.parametrize("n_participants", [1, 2])
def test_too_few_participants_give_no_differences(n_participants):
    values = torch.randn(n_participants, *SHAPE)
    assert not individual_components(values, values, ONE_GROUP, 4).any()
    assert individual_components(values, values, ONE_GROUP, 0).shape == (0, *SHAPE)


def test_split_halves():
    assert split_halves([1, 2, 3, 4, 5]) == ([1, 3, 5], [2, 4])
