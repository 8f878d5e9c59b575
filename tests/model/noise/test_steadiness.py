"""Noise that is divided by intensities: what is left of modes, and how loud frames are."""

import pytest
import torch

from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.steadiness import measure_steadiness, scale_modes
from fmrisynth.model.noise.white import WhiteNoise
from tests.model.noise.test_modal import MASK, NOTHING

SIZE, FRAMES = int(MASK.sum()), 200


def in_box(flat):
    """Values (N, P) in the brain, as a field of one channel."""
    field = torch.zeros(len(flat), 1, *MASK.shape)
    field[..., MASK] = flat[:, None]
    return field


@pytest.fixture(scope="module")
def axes():
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(SIZE, 3, generator=generator))[0].T


@pytest.fixture(scope="module")
def runs(axes):
    """Modes whose amplitude goes with the square of the intensity, with it, and not at all."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(16):
        intensity = torch.exp(0.4 * torch.randn(FRAMES, generator=generator))
        intensity /= intensity.square().mean().sqrt()
        white = torch.randn(FRAMES, 3, generator=generator)
        powers = torch.tensor([2.0, 1.0, 0.0])
        courses = 3 * white * intensity[:, None] ** powers
        rest = torch.randn(FRAMES, SIZE, generator=generator) * intensity[:, None]
        made.append((in_box(courses @ axes + rest - rest @ axes.T @ axes), intensity))
    return made


def test_what_is_left_of_each_mode(runs, axes):
    """s² u, s u and u have E[s⁴], 1 and 1 before, and 1, 1 and E[1/s²] once divided by s."""
    s = torch.cat([intensity for _, intensity in runs])
    expected = torch.tensor([1 / s.pow(4).mean(), 1.0, s.pow(-2).mean(), 1.0])
    found = measure_steadiness(runs, MASK, axes)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    torch.testing.assert_close(measure_steadiness([], MASK, axes), torch.ones(4))


def test_modes_and_the_rest_are_scaled_apart(axes):
    flat = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(2))
    factors = torch.tensor([2.0, 0.5, 3.0, 0.1])
    scaled = scale_modes(flat, axes, factors)
    torch.testing.assert_close(scaled @ axes.T, flat @ axes.T * factors[:3])
    rest = flat - flat @ axes.T @ axes
    torch.testing.assert_close(scaled - scaled @ axes.T @ axes, 0.1 * rest, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scale_modes(scaled, axes, 1 / factors), flat, atol=1e-4, rtol=1e-4)


def test_windows_are_as_runs_divided_by_their_intensities(runs):
    noise = ModalNoise(1, MASK, 3).fit([field for field, _ in runs], NOTHING)
    whole = noise.sample_window(FRAMES, torch.Generator().manual_seed(3))
    noise.fit_steadiness(runs)
    divided = torch.cat([field / s[:, None, None, None, None] for field, s in runs])
    power = noise.statistics(divided).courses.float().square().mean(0)
    drawn = [noise.sample_window(FRAMES, torch.Generator().manual_seed(i)) for i in range(8)]
    found = noise.statistics(torch.cat(drawn)).courses.float().square().mean(0)
    torch.testing.assert_close(found, power, rtol=0.15, atol=0)
    torch.testing.assert_close(noise.mode_sd.square(), power, rtol=0.1, atol=0)
    again = noise.sample_window(FRAMES, torch.Generator().manual_seed(3))
    assert not torch.allclose(again, whole, atol=0.1)
    torch.testing.assert_close(noise.unsteady(again), whole, atol=1e-4, rtol=1e-4)
    # whole runs keep what belongs to bursts
    run = noise.sample_run(FRAMES, 2.0, torch.Generator().manual_seed(3))
    torch.testing.assert_close(noise.unsteady(noise.steady(run)), run, atol=1e-4, rtol=1e-4)
    plain = noise.statistics(torch.cat([field for field, _ in runs])).courses.float()
    in_runs = torch.cat(
        [noise.sample_run(FRAMES, 2.0, torch.Generator().manual_seed(i)) for i in range(8)]
    )
    found = noise.statistics(in_runs).courses.float().square().mean(0)
    torch.testing.assert_close(found, plain.square().mean(0), rtol=0.15, atol=0)


def test_a_loud_mode_does_not_pass_for_the_intensity_of_all(axes):
    """Ten modes and one that is a hundred times as loud, steady all of them."""
    generator = torch.Generator().manual_seed(4)
    axes = torch.linalg.qr(torch.randn(SIZE, 11, generator=generator))[0].T
    sd = torch.tensor([10.0] + 10 * [1.0])
    field = in_box(torch.randn(2000, 11, generator=generator) * sd @ axes)
    noise = ModalNoise(1, MASK, 11).fit([field[i::4] for i in range(4)], NOTHING)
    energy = noise.frame_energy(field)
    assert energy.mean() == pytest.approx(1.0, rel=0.05)
    loudest = (field[:, 0, MASK] @ axes[0]).square()

    def with_the_loudest(values):
        return float(torch.corrcoef(torch.stack([values, loudest]))[0, 1])

    plain = WhiteNoise(1, MASK).frame_energy(field)
    torch.testing.assert_close(plain, field[:, 0, MASK].square().mean(1))
    assert with_the_loudest(plain) > 0.95
    assert with_the_loudest(energy) == pytest.approx(11**-0.5, abs=0.08)
