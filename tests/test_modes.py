"""Noise with modes: distant regions fluctuate together; else it is as stationary noise is."""

import numpy as np
import pytest
import torch

from fmrisynth.modes import ModalNoise
from fmrisynth.noise import ColouredNoise

MASK = torch.ones(8, 9, 7, dtype=torch.bool)
MASK[0] = MASK[:, 0] = False
LEFT, RIGHT = (slice(1, 3), slice(1, 3), slice(0, 3)), (slice(6, 8), slice(6, 9), slice(4, 7))
NOTHING = np.zeros((60, 0))
FRAMES = 60


def network_fields(runs=12, share=0.6, lag1=0.8, seed=0):
    """White noise, and a slow fluctuation that two distant regions have in common."""
    generator = torch.Generator().manual_seed(seed)
    fields = []
    for _ in range(runs):
        white = torch.randn(FRAMES, 1, *MASK.shape, generator=generator)
        course = torch.randn(FRAMES, generator=generator)
        for t in range(1, FRAMES):
            course[t] = lag1 * course[t - 1] + (1 - lag1**2) ** 0.5 * course[t]
        for region in (LEFT, RIGHT):
            part = white[:, 0, *region]
            shared = course.view(-1, 1, 1, 1) * share**0.5
            white[:, 0, *region] = part * (1 - share) ** 0.5 + shared
        fields.append(white * MASK)
    return fields


def draws(noise, count, n_frames=FRAMES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([noise.sample(n_frames, generator) for _ in range(count)])


def courses(fields, region):
    """Mean of a region at every frame, (runs, frames)."""
    return torch.stack([field[:, 0, *region].mean((1, 2, 3)) for field in fields])


def coupling(fields):
    """Correlation of the two regions' courses."""
    pair = torch.stack([courses(fields, region).flatten() for region in (LEFT, RIGHT)])
    return float(torch.corrcoef(pair)[0, 1])


@pytest.fixture(scope="module")
def fields():
    return network_fields()


@pytest.fixture(scope="module")
def modal(fields):
    return ModalNoise(1, MASK, 4).fit(fields, NOTHING)


def test_distant_regions_fluctuate_together_as_in_the_data(fields, modal):
    expected = coupling(fields)
    assert expected > 0.8
    assert coupling(draws(modal, 12)) == pytest.approx(expected, abs=0.1)
    stationary = ColouredNoise(1, MASK).fit(fields, NOTHING)
    # every pair of voxels at that offset shares what it has of this
    assert coupling(draws(stationary, 12)) < expected - 0.25


def test_a_mode_keeps_its_own_colour(fields, modal):
    def lag1(some):
        values = courses(some, LEFT)
        return float((values[:, 1:] * values[:, :-1]).mean() / values.square().mean())

    assert lag1(draws(modal, 24)) == pytest.approx(lag1(fields), abs=0.12)


def test_the_variance_is_one_inside_the_brain_and_zero_outside(modal):
    sample = draws(modal, 24)
    variance = sample.square().mean((0, 1))[0]
    assert float(variance[MASK].mean()) == pytest.approx(1, abs=0.05)
    assert float(variance[MASK].std()) < 0.15
    assert not sample[..., ~MASK].any()


def test_modes_of_noise_alone_take_nothing_that_is_not_there():
    """Without networks, the modes' variance is measured in runs they were not fitted to."""
    fields = network_fields(share=0.0)
    noise = ModalNoise(1, MASK, 16).fit(fields, NOTHING)
    assert float(noise.autocovariance[:, 0].mean()) == pytest.approx(1, abs=0.1)


def test_one_short_run_is_enough(fields):
    noise = ModalNoise(1, MASK, 64).fit([fields[0][:20]], NOTHING[:20])
    assert torch.isfinite(draws(noise, 2)).all()


def test_the_state_is_all_that_a_draw_depends_on(fields, modal):
    again = ModalNoise(1, MASK, 4).fit(iter(fields), NOTHING)
    loaded = ModalNoise(1, MASK, 4)
    loaded.load_state_dict(modal.state_dict())
    one = draws(modal, 1)
    assert torch.equal(one, draws(again, 1))
    assert torch.equal(one, draws(loaded, 1))
