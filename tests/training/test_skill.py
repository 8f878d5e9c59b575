"""Skill against closed forms: Gaussians whose level, mean and velocity are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from support.latent_world import MASK, SMALL, simulate
from support.tiny_model import DENOISER, N_FRAMES, VOCABULARY, perturb

from fmrisynth.model.denoiser.denoiser import GATE_BANDS, Denoiser
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.training.skill import (
    ANGLES,
    ValidationWindows,
    _skill,
    measure_skill,
    support,
    validation_gain,
)
from fmrisynth.training.window_noise import WindowNoise

N_TYPES = len(VOCABULARY.trial_types)


class Known(torch.nn.Module):
    """A backbone that is a function of the noisy latents and the angle."""

    patch = 2

    def __init__(self, function):
        super().__init__()
        self.function = function

    def encode(self, condition):
        return None

    def forward(self, x, theta, encoded):
        return self.function(x, theta.view(-1, 1, 1, 1, 1, 1))


def denoiser_of(function=None):
    """A denoiser with a known velocity; without one, it predicts zero as at its start."""
    torch.manual_seed(0)
    denoiser = Denoiser(DENOISER, VOCABULARY, 1, MASK, 2).eval()
    if function is not None:
        denoiser.backbone = Known(lambda x, theta: function(x, theta) * MASK)
    return denoiser


def white_runs(n=4, n_volumes=64, seed=0):
    """Runs of participants whose latents are white noise of unit variance, and nothing else."""
    world = simulate(np.zeros((n, N_TYPES, int(MASK.sum()))), n_volumes=n_volumes, seed=seed)
    return replace(world.runs, removed=False)


def windows_of(runs, seed=0):
    group = WhiteNoise(1, MASK)
    noise = WindowNoise([group] * len(runs), runs.participants, group)
    return ValidationWindows(runs, noise, N_FRAMES, seed)


def zeros(runs):
    return [torch.zeros(len(z), 1, *SMALL) for z in runs.latents]


def skill_of(denoiser, windows, means):
    """The skill where the model's prediction is what was evoked."""
    return measure_skill(denoiser, windows, means.__getitem__, means.__getitem__)


def gains(skill, part):
    return {row.theta: row.gain for row in skill if row.part == part}


# Windows


def test_windows_and_noise_are_the_same_at_every_call():
    windows = windows_of(white_runs())
    one, again = list(windows.batches(1)), list(windows.batches(1))
    other, elsewhere = list(windows.batches(2)), list(windows_of(white_runs(), 1).batches(1))
    for a, b, c, d in zip(one, again, other, elsewhere, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
        assert a[3] == b[3]
        assert not torch.equal(a[1], c[1])
        assert not torch.equal(a[1], d[1])


def test_a_participants_windows_are_of_its_own_runs():
    runs = white_runs()
    windows = windows_of(runs)
    for number, label in enumerate(windows.participants):
        own = runs.of([label])
        for latents, _, _, places in windows.batches(number):
            for x, (run, start) in zip(latents, places, strict=True):
                assert torch.equal(x, own.noise(run, start, N_FRAMES))


def test_the_precision_of_the_networks_does_not_reach_the_noise():
    windows = windows_of(white_runs())
    plain = [batch[1] for batch in windows.batches(0)]
    with torch.autocast("cpu", torch.bfloat16):
        cast = [batch[1] for batch in windows.batches(0)]
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


# Skill


@pytest.mark.parametrize("level", [0.5, 2.0])
def test_the_gain_of_the_noise_level_is_that_of_the_wrong_variance(level):
    """Of u with variance 1, "nothing" believes the variance s = level⁻²; with E[u_θ²] = 1 and
    E[u_θ v] = 0 its loss is E[v²] + k², so that the level takes k² away.
    """
    runs = white_runs()
    levels = [torch.full(SMALL, level) for _ in runs.levels]
    runs = replace(runs, levels=levels, latents=[level * z for z in runs.latents])
    found = gains(skill_of(denoiser_of(), windows_of(runs), zeros(runs)), "noise level")
    for theta, gain in found.items():
        cos, sin, s = math.cos(theta), math.sin(theta), level**-2
        k = cos * sin * (1 - s) / (s * cos**2 + sin**2)
        assert gain == pytest.approx(k**2, rel=0.05, abs=2e-3)
    assert max(found.values()) > 0.2


def test_a_typical_run_gains_nothing_by_its_level():
    runs = white_runs()
    found = skill_of(denoiser_of(), windows_of(runs), zeros(runs))
    assert set(gains(found, "noise level").values()) == {0.0}
    assert set(gains(found, "response").values()) == {0.0}


@pytest.mark.parametrize("level", [1.0, 3.0])
def test_the_gain_of_a_known_response_is_its_power(level):
    """The loss without the mean m of u is 1 + sin² θ · mean(m²), with it 1: beside the level."""
    runs, course = white_runs(12), torch.sin(torch.arange(64) / 3)[:, None, None, None, None]
    mean = 0.8 * course * torch.linspace(0.5, 1.5, 4).view(1, 1, 4, 1, 1) * MASK
    raw = [level * (z + mean.numpy()) for z in runs.latents]
    runs = replace(runs, latents=raw, levels=[torch.full(SMALL, level) for _ in raw])
    windows = windows_of(runs)
    found = skill_of(denoiser_of(), windows, [level * mean] * len(raw))
    power = []
    for number, label in enumerate(windows.participants):
        assert label in runs.participants
        for _, _, _, places in windows.batches(number):
            power += [float(mean[s : s + N_FRAMES][..., MASK].square().mean()) for _, s in places]
    both, alone = gains(found, "noise level + response"), gains(found, "noise level")
    for theta, gain in both.items():
        expected = math.sin(theta) ** 2 * np.mean(power)
        assert gain - alone[theta] == pytest.approx(expected, rel=0.05, abs=8e-3)
        if level == 1:
            assert gains(found, "response")[theta] == pytest.approx(gain, abs=1e-6)


def test_a_response_of_the_wrong_sign_does_harm():
    runs, course = white_runs(), torch.sin(torch.arange(64) / 3)[:, None, None, None, None]
    mean = 0.5 * course * MASK
    right = replace(runs, latents=[z + mean.numpy() for z in runs.latents])
    found = skill_of(denoiser_of(), windows_of(right), [-mean] * len(runs))
    assert max(gains(found, "response").values()) < 0


def test_a_network_that_predicts_nothing_gains_nothing():
    runs = white_runs()
    found = skill_of(denoiser_of(), windows_of(runs), zeros(runs))
    assert set(gains(found, "backbone").values()) == {0.0}
    closed = denoiser_of(lambda x, theta: x)
    closed.gate.zero_()
    found = skill_of(closed, windows_of(runs), zeros(runs))
    assert set(gains(found, "backbone").values()) == {0.0}


def test_the_gain_of_a_network_is_what_it_knows_of_the_variance():
    """Of u with standard deviation 2 about white noise of 1: k² E[u_θ²] with the exact v."""
    runs = white_runs()
    runs = replace(runs, latents=[2 * z for z in runs.latents])

    def slope(theta):
        cos, sin = theta.cos(), theta.sin()
        return cos * sin * (1 - 4) / (4 * cos**2 + sin**2)

    denoiser = denoiser_of(lambda x, theta: slope(theta) * x)
    found = gains(skill_of(denoiser, windows_of(runs), zeros(runs)), "backbone")
    for theta, gain in found.items():
        angle = torch.tensor(theta)
        variance = 4 * math.cos(theta) ** 2 + math.sin(theta) ** 2
        expected = float(slope(angle)) ** 2 * variance
        assert gain == pytest.approx(expected, rel=0.08, abs=2e-3)


def test_a_network_that_reads_own_responses_from_the_window_gains_nothing():
    """What a run's events evoked beyond the prediction is no part of the noise."""
    runs, course = white_runs(8), torch.sin(torch.arange(64) / 3)[:, None, None, None, None]
    own = course * MASK
    runs = replace(runs, latents=[z + own.numpy() for z in runs.latents])
    pattern = MASK / MASK.sum() ** 0.5

    def along(x, theta):
        """Velocity of noise that is louder along the pattern of the response."""
        amount = (x * pattern).sum((-3, -2, -1), keepdim=True)
        cos, sin, louder = theta.cos(), theta.sin(), 10.0
        k = cos * sin * (1 - louder) / (louder * cos**2 + sin**2)
        return k * amount * pattern

    windows, nothing = windows_of(runs), zeros(runs).__getitem__
    reading = gains(measure_skill(denoiser_of(along), windows, nothing, nothing), "backbone")
    found = measure_skill(denoiser_of(along), windows, nothing, lambda index: own)
    judged = gains(found, "backbone")
    for theta in ANGLES[1:4]:
        assert reading[theta] > 0.005
        assert judged[theta] < 0


def test_every_part_has_a_row_at_every_angle_with_a_t_interval():
    runs = white_runs(4)
    denoiser = denoiser_of()
    perturb(denoiser, 0.2)
    found = skill_of(denoiser, windows_of(runs), zeros(runs))
    parts = ["noise level", "response", "noise level + response", "backbone"]
    assert [(row.theta, row.part) for row in found] == [(a, p) for a in ANGLES for p in parts]
    assert all(row.ci_low <= row.gain <= row.ci_high for row in found)


def test_intervals_are_those_of_t():
    sample = np.array([0.1, 0.3, 0.2, 0.25])
    row = _skill(0.6, "response", sample)
    half = stats.t.ppf(0.975, 3) * stats.sem(sample)
    expected = (0.6, sample.mean(), sample.mean() - half, sample.mean() + half)
    assert (row.theta, row.gain, row.ci_low, row.ci_high) == pytest.approx(expected)
    alone = _skill(0.6, "response", sample[:1])
    assert alone.gain == pytest.approx(0.1)
    assert math.isnan(alone.ci_low)
    assert math.isnan(alone.ci_high)


# The gate


def constant_runs(n=4):
    """Latents that are the same everywhere, so that (x_0, ε) follow from the noisy latents."""
    runs = white_runs(n)
    return replace(runs, latents=[np.ones_like(z) * MASK.numpy() for z in runs.latents])


def gate_of(denoiser, runs=None, seed=0, **more):
    """The backbone's gate, and no other without a mode head."""
    found = support(denoiser, windows_of(constant_runs() if runs is None else runs, seed), **more)
    assert list(found) == ["gate"]
    return found["gate"]


def true_velocity(x, theta):
    """v of x_0 = 1: ε = (x − cos θ) / sin θ."""
    cos, sin = theta.cos(), theta.sin()
    return (x - cos) / sin * cos - sin


def test_the_true_velocity_is_supported_whole():
    denoiser = denoiser_of(true_velocity)
    assert gate_of(denoiser) == pytest.approx([1] * GATE_BANDS, abs=0.02)


def test_what_follows_the_condition_is_supported_at_every_angle():
    """The mean of the velocity, −sin θ · m, is far below the noise near θ = 0."""
    denoiser = denoiser_of(lambda x, theta: -theta.sin() * torch.ones_like(x))
    found = gate_of(denoiser)
    assert found == pytest.approx([1] * GATE_BANDS, abs=1e-3)


def test_certain_support_hardly_loses_size_and_doubtful_support_counts_for_nothing():
    """Participants of unequal responses, which are still certain; and one half against it."""
    sizes = {"certain": (0.8, 1.0, 1.2, 1.0), "doubtful": (-1.0, 1.4, -1.0, 1.4)}
    found = {}
    for name, of_participants in sizes.items():
        runs = constant_runs(4)
        latents = [
            size * z for size, z in zip(np.repeat(of_participants, 2), runs.latents, strict=True)
        ]
        denoiser = denoiser_of(lambda x, theta: -theta.sin() * torch.ones_like(x))
        found[name] = gate_of(denoiser, replace(runs, latents=latents))
    assert float(found["certain"].min()) > 0.95
    assert not found["doubtful"].any()


def test_without_caution_what_is_not_chance_keeps_its_size():
    """Participants whose responses are .4, .5 and 1.2, of which the network says 1."""
    found = {}
    for cautious in (True, False):
        runs = constant_runs(3)
        latents = [
            size * z for size, z in zip(np.repeat((0.4, 0.5, 1.2), 2), runs.latents, strict=True)
        ]
        denoiser = denoiser_of(lambda x, theta: -theta.sin() * torch.ones_like(x))
        found[cautious] = gate_of(denoiser, replace(runs, latents=latents), cautious=cautious)
    assert found[False] == pytest.approx([0.7] * GATE_BANDS, rel=1e-3)
    assert (found[True] < 0.6).all()


def test_without_caution_chance_counts_for_nothing_either():
    denoiser = denoiser_of(lambda x, theta: -theta.sin() * torch.ones_like(x))
    runs = constant_runs(4)
    latents = [
        size * z for size, z in zip(np.repeat((-1.0, 1.4, -1.0, 1.4), 2), runs.latents, strict=True)
    ]
    assert not gate_of(denoiser, replace(runs, latents=latents), cautious=False).any()


def test_what_adds_too_little_is_not_supported():
    """The mean velocity, −sin θ · m with m = 1, is sin² θ of the velocity's power at most."""
    denoiser = denoiser_of(lambda x, theta: -theta.sin() * torch.ones_like(x))
    width = math.pi / 2 / GATE_BANDS
    gains = torch.sin((torch.arange(GATE_BANDS) + 0.5) * width) ** 2
    found = gate_of(denoiser, least_gain=0.3)
    # ε has unit variance, so that the velocity's power is 1
    clear = (gains - 0.3).abs() > 0.1
    assert ((found > 0.5) == (gains > 0.3))[clear].all()
    assert 0 < int((found > 0).sum()) < GATE_BANDS


@pytest.mark.parametrize("factor", [2.0, 5.0])
def test_what_is_too_large_is_scaled_down(factor):
    denoiser = denoiser_of(lambda x, theta: factor * true_velocity(x, theta))
    found = gate_of(denoiser)
    assert found == pytest.approx([1 / factor] * GATE_BANDS, rel=0.05)


def test_the_gate_never_enlarges():
    denoiser = denoiser_of(lambda x, theta: 0.5 * true_velocity(x, theta))
    found = gate_of(denoiser)
    assert found.tolist() == [1.0] * GATE_BANDS


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_a_share_of_what_is_noisy_is_supported(noise):
    """Of v + noise of n times its variance, 1 / (1 + n)."""
    generator = torch.Generator().manual_seed(0)

    def noisy(x, theta):
        v = true_velocity(x, theta)
        error = torch.randn(v.shape, generator=generator) * v[..., MASK].square().mean().sqrt()
        return v + noise**0.5 * error

    found = gate_of(denoiser_of(noisy))
    assert found == pytest.approx([1 / (1 + noise)] * GATE_BANDS, rel=0.15)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_output_that_says_nothing_of_the_velocity_has_no_support(n):
    """On average nearly nothing is let through, and for most bands nothing at all."""
    generator = torch.Generator().manual_seed(1)
    denoiser = denoiser_of(lambda x, theta: torch.randn(x.shape, generator=generator))
    found = torch.cat([gate_of(denoiser, white_runs(n), seed) for seed in range(3)])
    assert float(found.mean()) < 0.01
    assert float((found == 0).float().mean()) > 0.6


def test_a_harmful_output_is_shut_off():
    denoiser = denoiser_of(lambda x, theta: -true_velocity(x, theta))
    assert not gate_of(denoiser).any()


def test_support_leaves_the_denoiser_as_it_was():
    denoiser = denoiser_of(true_velocity)
    denoiser.gate.copy_(torch.linspace(0, 1, GATE_BANDS))
    before = denoiser.gate.clone()
    found = gate_of(denoiser)
    assert torch.equal(denoiser.gate, before)
    assert float(found.min()) > 0.9  # whatever the gate was


# The gain along a training


def test_the_gain_of_the_true_velocity_is_its_power():
    found = validation_gain(denoiser_of(true_velocity), windows_of(constant_runs()))
    assert isinstance(found, float)
    # E[v²] = cos² + sin² = 1 at every angle
    assert found == pytest.approx(1, abs=0.05)


def test_a_scale_does_not_count_for_the_gain_but_its_sign_does():
    windows = windows_of(constant_runs())
    one = validation_gain(denoiser_of(true_velocity), windows)
    twice = validation_gain(denoiser_of(lambda x, t: 2 * true_velocity(x, t)), windows)
    assert twice == pytest.approx(one, rel=1e-4)
    assert validation_gain(denoiser_of(lambda x, t: -true_velocity(x, t)), windows) == 0
    assert validation_gain(denoiser_of(), windows) == 0
