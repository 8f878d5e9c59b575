"""Intensities of frames: none at first, those of the runs that they were fitted to afterwards."""

import numpy as np
import pytest
import torch

from fmrisynth.model.intensity import FrameIntensity


def courses(n=40, length=200, spread=0.3, lag1=0.6, seed=0):
    """Courses log s(t) of runs: skewed, slow, each as restless as the next."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        g = rng.standard_normal(length)
        for t in range(1, length):
            g[t] = lag1 * g[t - 1] + (1 - lag1**2) ** 0.5 * g[t]
        skewed = np.exp(0.5 * g)
        made.append(spread * (skewed - skewed.mean()) / skewed.std())
    return made


def drawn(intensity, count=60, length=200):
    generator = torch.Generator().manual_seed(1)
    return torch.stack([intensity.sample(length, generator) for _ in range(count)])


def test_before_they_are_fitted_all_intensities_are_one():
    torch.testing.assert_close(drawn(FrameIntensity()), torch.ones(60, 200))


def test_courses_of_no_fluctuation_leave_them_at_one():
    intensity = FrameIntensity().fit([np.zeros(50)] * 3)
    torch.testing.assert_close(drawn(intensity), torch.ones(60, 200))


def test_synthetic_intensities_are_distributed_as_those_learned_from():
    """Spread, skewness and autocorrelation of log s; the mean square is 1 in every run."""
    sample = drawn(FrameIntensity().fit(courses()))
    torch.testing.assert_close(sample.square().mean(1), torch.ones(60), atol=1e-4, rtol=1e-4)
    found = np.log(sample.numpy())
    found -= found.mean(1, keepdims=True)
    true = np.stack(courses())
    true -= true.mean(1, keepdims=True)
    assert found.std() == pytest.approx(true.std(), rel=0.15)
    skewness = [np.mean(x**3) / x.std() ** 3 for x in (found, true)]
    assert skewness[0] == pytest.approx(skewness[1], rel=0.4)
    lag1 = [np.mean(x[:, 1:] * x[:, :-1]) / np.mean(x**2) for x in (found, true)]
    assert lag1[0] == pytest.approx(lag1[1], abs=0.12)


def test_some_runs_are_more_restless_than_others():
    mixed = [c * f for c, f in zip(courses(60), np.geomspace(0.3, 3, 60), strict=True)]
    intensity = FrameIntensity().fit(mixed)
    spreads = np.log(np.log(drawn(intensity, 200).numpy()).std(1))
    assert spreads.std() == pytest.approx(np.log(np.geomspace(0.3, 3, 60)).std(), rel=0.25)
    alike = FrameIntensity().fit(courses(60))
    assert np.log(np.log(drawn(alike, 200).numpy()).std(1)).std() < 0.5 * spreads.std()


def test_what_gaussian_noise_has_by_chance_is_no_intensity():
    intensity, rng = FrameIntensity(), np.random.default_rng(0)
    intensity.chance.fill_(0.01)
    by_chance = 0.1 * rng.standard_normal(400)
    assert intensity.of_run(by_chance).log().std() < 0.3 * by_chance.std()
    assert intensity.shrink(0.5 * by_chance).std() == pytest.approx(0, abs=1e-9)
    restless = rng.standard_normal(400)
    assert intensity.shrink(restless).std() == pytest.approx(restless.std(), rel=0.02)
    expected = (0.5 * restless.var() - 0.01) ** 0.5
    assert intensity.shrink(0.5**0.5 * restless).std() == pytest.approx(expected, rel=0.01)


def test_the_intensities_of_a_run_have_a_mean_square_of_one():
    found = FrameIntensity().of_run(courses(1)[0] + 2.0)  # its level does not matter
    assert found.dtype == torch.float32
    assert float(found.square().mean()) == pytest.approx(1, abs=1e-5)


def test_the_same_generator_draws_the_same_run():
    intensity = FrameIntensity().fit(courses())
    one, again, other = (
        intensity.sample(80, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_agreement_is_the_mean_product_of_frames_at_each_lag():
    assert torch.equal(FrameIntensity().agreement(5), torch.ones(5))
    intensity = FrameIntensity().fit(courses(spread=0.6, lag1=0.3))
    agreement = intensity.agreement(4)
    runs = drawn(intensity)
    expected = (runs[:, 1:] * runs[:, :-1]).mean() / runs.square().mean()
    assert float(agreement[1]) == pytest.approx(float(expected), rel=0.05)
    assert 1 == agreement[0] > agreement[1] > agreement[3]
