"""Schedules have the angles of their formulas."""

import math

import numpy as np
import pytest
import torch

from fmrisynth.config.diffusion import ScheduleConfig
from fmrisynth.model.denoiser.schedule import (
    alphas_bar,
    discrete_angles,
    sampling_angles,
    training_angles,
)

ANGULAR = ScheduleConfig()
PUBLISHED = [ScheduleConfig("linear"), ScheduleConfig("scaled_linear")]


# Schedules


def test_linear_betas():
    """ᾱ_t = Π (1 − β_s) with β from 0.0015 to 0.0195 in 1000 equal steps."""
    product, expected = 1.0, []
    for t in range(1000):
        product *= 1 - (0.0015 + (0.0195 - 0.0015) * t / 999)
        expected.append(product)
    np.testing.assert_allclose(alphas_bar(ScheduleConfig("linear")).numpy(), expected, rtol=1e-10)


def test_scaled_linear_betas():
    """The same with the square root of β in equal steps."""
    low, high = math.sqrt(0.0015), math.sqrt(0.0195)
    product, expected = 1.0, []
    for t in range(1000):
        product *= 1 - (low + (high - low) * t / 999) ** 2
        expected.append(product)
    schedule = ScheduleConfig("scaled_linear")
    np.testing.assert_allclose(alphas_bar(schedule).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("schedule", [ANGULAR, *PUBLISHED], ids=lambda s: s.kind)
def test_angles_increase_from_data_to_noise(schedule):
    angles = discrete_angles(schedule)
    assert len(angles) == schedule.n_steps
    assert (angles.diff() > 0).all()
    assert 0 < float(angles[0]) < 0.05
    assert math.pi / 2 - 0.1 < float(angles[-1]) <= math.pi / 2 + 1e-6


@pytest.mark.parametrize("schedule", PUBLISHED, ids=lambda s: s.kind)
def test_the_squared_cosine_of_the_angle_is_alpha_bar(schedule):
    cosine = discrete_angles(schedule).double().cos().square()
    np.testing.assert_allclose(cosine.numpy(), alphas_bar(schedule).numpy(), atol=1e-6)


@pytest.mark.parametrize("schedule", [ANGULAR, *PUBLISHED], ids=lambda s: s.kind)
@pytest.mark.parametrize("steps", [1, 7, 20, 1000])
def test_sampling_angles_go_from_noise_to_zero(schedule, steps):
    angles = sampling_angles(schedule, steps)
    assert len(angles) == steps + 1
    assert float(angles[0]) == pytest.approx(float(discrete_angles(schedule)[-1]), abs=1e-6)
    assert float(angles[-1]) == 0
    assert (angles.diff() < 0).all()


@pytest.mark.parametrize("schedule", PUBLISHED, ids=lambda s: s.kind)
def test_training_angles_are_the_discrete_ones_equally_often(schedule):
    uniform = torch.arange(0, 1, 1 / 4000, dtype=torch.float64)
    drawn = training_angles(schedule, uniform)
    values, counts = drawn.unique(return_counts=True)
    assert torch.equal(values, discrete_angles(schedule).unique())
    assert set(counts.tolist()) <= {3, 4, 5}
    assert float(training_angles(schedule, torch.tensor([0.0]))) == float(
        discrete_angles(schedule)[0]
    )


def test_angular_training_angles_are_uniform():
    uniform = torch.linspace(0, 1, 101)[:-1]
    np.testing.assert_allclose(training_angles(ANGULAR, uniform), uniform * math.pi / 2, rtol=1e-6)


def test_unknown_schedules_are_refused():
    with pytest.raises(ValueError, match=r"cosine.*angular, linear or scaled_linear"):
        ScheduleConfig("cosine")
