"""The mode head: Wiener's filter of each mode, its variance read from the noisy window."""

import math

import pytest
import torch

from fmrisynth.config.diffusion import BackboneConfig, DenoiserConfig
from fmrisynth.model.denoiser.mode_head import LOUDEST, QUIETEST, ModeHead

MODES, FRAMES, SHAPE = 24, 16, (2, 3, 4, 5)


def head_of(width=16, seed=0):
    """A head with random orthonormal modes, and those as rows."""
    torch.manual_seed(seed)
    head = ModeHead(width)
    maps = torch.linalg.qr(torch.randn(math.prod(SHAPE), MODES))[0].T
    head.attach(maps.view(MODES, *SHAPE))
    return head, maps


def windows(scale, theta, generator):
    """Noisy windows of modes with a_k = scale² (B, K), and their velocity, as courses."""
    u, e = (torch.randn(len(theta), FRAMES, MODES, generator=generator) for _ in range(2))
    cos, sin = (f(theta)[:, None, None] for f in (torch.cos, torch.sin))
    u = u * scale[:, None]
    return cos * u + sin * e, cos * e - sin * u


def scales(count, spread, generator):
    """Runs that are louder or quieter as a whole, and modes that are so by themselves."""
    whole = torch.randn(count, 1, generator=generator)
    each = torch.randn(count, MODES, generator=generator)
    return (spread * (whole + each)).exp()


def trained(spread, steps=300):
    """A head that has learned from windows whose log SD has this spread, twice."""
    head, maps = head_of()
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        theta = torch.rand(32, generator=generator) * math.pi / 2
        x, v = windows(scales(32, spread, generator), theta, generator)
        loss = (v @ maps - head((x @ maps).view(32, FRAMES, *SHAPE), theta, torch.ones(32, MODES))
                .flatten(2)).square().sum(2).mean()  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head, maps


@torch.no_grad()
def gains(head, maps, spread, angle):
    """Share of the velocity's power that the head takes, and that knowing a_k would take."""
    generator = torch.Generator().manual_seed(2)
    theta = torch.full((400,), angle)
    scale = scales(400, spread, generator)
    x, v = windows(scale, theta, generator)
    found = head((x @ maps).view(400, FRAMES, *SHAPE), theta, torch.ones(400, MODES))
    cos, sin, a = math.cos(angle), math.sin(angle), scale**2
    known = (cos * sin * (1 - a) / (a * cos**2 + sin**2))[:, None] * x
    power = v.square().sum()
    return tuple(
        float(1 - (v - p).square().sum() / power) for p in (found.flatten(2) @ maps.T, known)
    )


def test_it_begins_with_no_velocity():
    head, _ = head_of()
    x = torch.randn(3, FRAMES, *SHAPE)
    assert not head(x, torch.rand(3), torch.ones(3, MODES)).any()


@torch.no_grad()
@pytest.mark.parametrize("log_variance", [-1.5, 0.7, 9.0, -9.0])
def test_it_filters_each_mode_by_the_variance_that_it_reads(log_variance):
    """Against Wiener's formula; variances beyond belief are the last that are believed."""
    head, maps = head_of()
    head.line.bias.fill_(log_variance)
    courses, theta = torch.randn(4, FRAMES, MODES), torch.tensor([0.1, 0.5, 1.0, 1.5])
    found = head((courses @ maps).view(4, FRAMES, *SHAPE), theta, torch.ones(4, MODES))
    a = math.exp(min(max(log_variance, QUIETEST), LOUDEST))
    cos, sin = theta.cos(), theta.sin()
    gain = (cos * sin * (1 - a) / (a * cos**2 + sin**2))[:, None, None]
    torch.testing.assert_close(found.flatten(2), gain * courses @ maps, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_nothing_outside_the_modes_is_touched_and_the_unit_of_the_noise_does_not_matter():
    head, maps = head_of()
    for parameter in head.parameters():
        parameter.normal_(0, 0.3)
    x, theta, sd = torch.randn(2, FRAMES, *SHAPE), torch.rand(2), torch.rand(2, MODES) + 0.5
    found = head(x, theta, sd).flatten(2)
    torch.testing.assert_close(found @ maps.T @ maps, found, atol=1e-4, rtol=1e-4)
    beside = (x.flatten(2) - x.flatten(2) @ maps.T @ maps).view_as(x)
    torch.testing.assert_close(head(x - beside, theta, sd).flatten(2), found, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        head(3 * x, theta, 3 * sd).flatten(2), 3 * found, atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(head(-x, theta, sd).flatten(2), -found)


def test_it_learns_to_read_the_variance_of_modes_from_a_window():
    """Modes of 2/3 to 1.5 times the SD, and runs: at least 0.7 of what knowing them would bring."""
    head, maps = trained(0.4)
    for angle in (0.6, 0.95):
        found, known = gains(head, maps, 0.4, angle)
        assert known > 0.1
        assert 0.7 * known < found <= known


def test_it_learns_to_do_nothing_where_there_is_nothing_to_read():
    head, maps = trained(0.0)
    for angle in (0.6, 0.95):
        assert abs(gains(head, maps, 0.0, angle)[0]) < 1e-3


@torch.no_grad()
def test_what_it_learned_holds_for_other_modes():
    """Another fit of the noise has other modes, of another number."""
    head, maps = head_of()
    for parameter in head.parameters():
        parameter.normal_(0, 0.3)
    courses, theta = torch.randn(2, FRAMES, MODES), torch.tensor([0.5, 1.0])
    before = head((courses @ maps).view(2, FRAMES, *SHAPE), theta, torch.ones(2, MODES))
    turned = torch.linalg.qr(torch.randn(math.prod(SHAPE), MODES))[0].T
    head.attach(turned.view(MODES, *SHAPE))
    after = head((courses @ turned).view(2, FRAMES, *SHAPE), theta, torch.ones(2, MODES))
    torch.testing.assert_close(
        after.flatten(2) @ turned.T, before.flatten(2) @ maps.T, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("changes", "reads"),
    [
        ({}, True),
        ({"mode_width": 0}, False),
        ({"noise_modes": 0}, False),
        ({"noise": "white"}, False),
        ({"prediction": "epsilon"}, False),
        ({"n_frames": 1}, False),
    ],
)
def test_modes_are_read_where_there_are_modes_and_a_window(changes, reads):
    config = DenoiserConfig(**({"mode_width": 8, "backbone": BackboneConfig()} | changes))
    assert config.reads_modes is reads
