"""Samplers solve Gaussians whose exact velocity is known."""

import math

import numpy as np
import pytest
import torch

from fmrisynth.config.diffusion import ScheduleConfig
from fmrisynth.model.denoiser.schedule import sampling_angles
from fmrisynth.synthesis.sampler import SAMPLERS, ddim, ddpm, dpmpp_2m, euler

ANGULAR = ScheduleConfig()
PUBLISHED = [ScheduleConfig("linear"), ScheduleConfig("scaled_linear")]
MEAN, SD = 0.7, 1.6


# Samplers. For x_0 ~ N(m, s²): x_θ ~ N(c·m, c²s² + σ²), with c = cos θ and σ = sin θ, and
# E[v | x] = −σ·m + σ·c·(1 − s²) / (c²s² + σ²) · (x − c·m).


def gaussian_velocity(mean=MEAN, sd=SD):
    def velocity(x, theta):
        cos, sin = math.cos(theta), math.sin(theta)
        slope = sin * cos * (1 - sd**2) / (cos**2 * sd**2 + sin**2)
        return -sin * mean + slope * (x - cos * mean)

    return velocity


def forbidden():
    raise AssertionError("a deterministic sampler drew noise")


def map_error(sampler, schedule, steps):
    """Larger of the errors of mean and standard deviation.

    The ODE of a Gaussian is linear: it takes ε to mean + sd · ε, which two points tell.
    """
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    low, high = sampler(
        gaussian_velocity(), x, sampling_angles(schedule, steps), forbidden
    ).tolist()
    return max(abs((high + low) / 2 - MEAN), abs((high - low) / 2 - SD))


def test_all_samplers_have_a_name():
    assert set(SAMPLERS) == {"euler", "ddim", "ddpm", "dpmpp-2m"}


@pytest.mark.parametrize(
    ("name", "steps", "tolerance"),
    [
        ("euler", 20, 0.03),
        ("euler", 50, 0.01),
        ("ddim", 50, 0.12),
        ("ddim", 200, 0.03),
        ("dpmpp-2m", 20, 0.08),
        ("dpmpp-2m", 50, 0.03),
    ],
)
def test_deterministic_samplers_on_a_gaussian(name, steps, tolerance):
    assert map_error(SAMPLERS[name], ANGULAR, steps) < tolerance


@pytest.mark.parametrize(
    ("sampler", "order"), [(euler, 2), (ddim, 1), (dpmpp_2m, 1)], ids=["euler", "ddim", "dpmpp"]
)
def test_the_error_shrinks_with_the_steps_as_the_order_says(sampler, order):
    errors = [map_error(sampler, ANGULAR, steps) for steps in (40, 160)]
    assert errors[1] < errors[0] / 4**order * 1.5


@pytest.mark.parametrize("schedule", PUBLISHED, ids=lambda s: s.kind)
@pytest.mark.parametrize(
    ("name", "steps", "tolerance"),
    [("euler", 50, 0.06), ("ddim", 200, 0.06), ("dpmpp-2m", 20, 0.1)],
)
def test_deterministic_samplers_on_the_published_schedules(schedule, name, steps, tolerance):
    assert map_error(SAMPLERS[name], schedule, steps) < tolerance


@pytest.mark.parametrize("schedule", [ANGULAR, *PUBLISHED], ids=lambda s: s.kind)
def test_ancestral_sampling_on_a_gaussian(schedule):
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(20_000, generator=generator, dtype=torch.float64)

    x = ddpm(gaussian_velocity(), draw(), sampling_angles(schedule, 1000), draw)
    # standard errors of 20 000 samples: 0.011 and 0.008
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.04)
    assert float(x.std()) == pytest.approx(SD, rel=0.03)


def test_ancestral_noise_has_the_posterior_variance():
    """One step from θ_t to θ_s with x_0 and ε known (Ho et al. 2020, eq. 7)."""
    high, low, x0 = 1.2, 0.8, 0.4
    generator = torch.Generator().manual_seed(1)

    def draw():
        return torch.randn(200_000, generator=generator, dtype=torch.float64)

    # x_θ' after the step has the marginal of q(x_s | x_0): mean cos·x_0, variance sin²
    x = math.cos(high) * x0 + math.sin(high) * draw()

    def velocity(x, theta):
        return (math.cos(theta) * x - x0) / math.sin(theta)

    stepped = ddpm(velocity, x, torch.tensor([high, low], dtype=torch.float64), draw)
    assert float(stepped.mean()) == pytest.approx(math.cos(low) * x0, abs=0.01)
    assert float(stepped.var()) == pytest.approx(math.sin(low) ** 2, rel=0.01)
    alpha_bar, alpha_bar_s = math.cos(high) ** 2, math.cos(low) ** 2
    posterior = (1 - alpha_bar_s) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_s)
    still = x[:1].expand(200_000)  # the same x_t over and over: what is left is the posterior
    again = ddpm(velocity, still, torch.tensor([high, low], dtype=torch.float64), draw)
    assert float(again.var()) == pytest.approx(posterior, rel=0.02)


def test_euler_keeps_what_the_network_leaves_alone():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for steps in (1, 4, 15):
        kept = euler(
            lambda x, _: torch.zeros_like(x), x, sampling_angles(ANGULAR, steps), forbidden
        )
        assert torch.equal(kept, x)


@pytest.mark.parametrize("steps", [1, 5, 15])
def test_ddim_shrinks_it_by_the_cosine_of_each_step(steps):
    x = torch.ones(3, dtype=torch.float64)
    found = ddim(lambda x, _: torch.zeros_like(x), x, sampling_angles(ANGULAR, steps), forbidden)
    expected = math.cos(math.pi / 2 / steps) ** steps
    assert found.tolist() == pytest.approx([expected] * 3, abs=1e-6)


@pytest.mark.parametrize("schedule", PUBLISHED, ids=lambda s: s.kind)
def test_dpmpp_follows_its_algorithm(schedule):
    """Lu et al. 2022, algorithm 2, in α, σ and λ = log(α / σ), down to the last angle but zero."""
    angles = sampling_angles(schedule, 12)[:-1].double()
    velocity = gaussian_velocity()
    alpha, sigma = angles.cos().tolist(), angles.sin().tolist()
    lambdas = [math.log(a / s) for a, s in zip(alpha, sigma, strict=True)]
    x, data = torch.tensor([-1.0, 0.4], dtype=torch.float64), []
    for i in range(1, len(angles)):
        data.append(alpha[i - 1] * x - sigma[i - 1] * velocity(x, float(angles[i - 1])))
        h = lambdas[i] - lambdas[i - 1]
        estimate = data[-1]
        if i > 1:
            r = (lambdas[i - 1] - lambdas[i - 2]) / h
            estimate = (1 + 1 / (2 * r)) * data[-1] - 1 / (2 * r) * data[-2]
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * math.expm1(-h) * estimate
    start = torch.tensor([-1.0, 0.4], dtype=torch.float64)
    np.testing.assert_allclose(dpmpp_2m(velocity, start, angles, forbidden), x, atol=1e-6)


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m", "ddpm"])
def test_a_known_data_point_is_reached_exactly(name):
    """With x_0 known, the last step ends on it, however many steps there are."""
    x0 = torch.tensor([0.3, -2.0], dtype=torch.float64)

    def velocity(x, theta):
        return (math.cos(theta) * x - x0) / math.sin(theta)

    x = torch.tensor([1.0, 0.5], dtype=torch.float64)
    for steps in (1, 3, 10):
        found = SAMPLERS[name](
            velocity, x, sampling_angles(ANGULAR, steps), lambda: torch.zeros(2, dtype=x.dtype)
        )
        np.testing.assert_allclose(found, x0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("schedule", [ANGULAR, *PUBLISHED], ids=lambda s: s.kind)
@pytest.mark.parametrize("steps", [1, 2, 1001, 1500])
def test_any_number_of_steps_gives_finite_samples(name, schedule, steps):
    x = torch.linspace(-2, 2, 5)
    calls = []

    def progress(indices):
        for index in indices:
            calls.append(index)
            yield index

    found = SAMPLERS[name](
        gaussian_velocity(), x, sampling_angles(schedule, steps), lambda: torch.zeros(5), progress
    )
    assert torch.isfinite(found).all()
    assert found.dtype == torch.float32
    assert len(calls) == steps or (len(calls) == schedule.n_steps < steps)
