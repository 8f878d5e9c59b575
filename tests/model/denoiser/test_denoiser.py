"""The denoiser: conditions reach its output, it starts at zero, gate, masks."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from support.tiny_denoiser import MASK, condition, make, noisy, output, size
from support.tiny_model import (
    BACKBONE,
    DENOISER,
    LATENT,
    N_FRAMES,
    SHAPE,
    VOCABULARY,
    batch,
    blocks,
    make_run,
    with_backbone,
)

from fmrisynth.config.diffusion import BackboneConfig, DenoiserConfig, ScheduleConfig
from fmrisynth.model.denoiser.conditioning import RunCondition, collate
from fmrisynth.model.denoiser.denoiser import EPSILON_ERROR, GATE_BANDS, Denoiser
from fmrisynth.model.denoiser.schedule import sampling_angles
from fmrisynth.synthesis.guidance import GuidedVelocity
from fmrisynth.synthesis.sampler import SAMPLERS, euler

ARCHITECTURES = [
    {"architecture": architecture, "cross_attention": cross, "frame_tokens": tokens}
    for architecture in ("hybrid", "cnn", "transformer")
    for cross in (True, False)
    for tokens in (True, False)
]
PLAIN = {"architecture": "dit", "widths": (16,), "blocks": (2,)}
ARCHITECTURES += [
    PLAIN | {"cross_attention": cross, "frame_tokens": cross} for cross in (True, False)
]


@pytest.mark.parametrize("form", ARCHITECTURES, ids=lambda f: "-".join(map(str, f.values())))
def test_the_backbone_listens_to_its_condition(form):
    denoiser = make(with_backbone(**form))
    window = condition()
    plain = output(denoiser, window)
    scale = size(plain)
    assert scale > 0.1
    changed = {
        "attributes": replace(window, attributes=torch.tensor([[2, 1, 0]])),
        "t_r": replace(window, t_r=torch.tensor([0.8])),
        "anatomy": replace(window, anatomy=window.anatomy.flip(2)),
        "condition_mask": window.unconditional(),
        "anatomy_mask": replace(window, anatomy_mask=torch.zeros(1)),
    }
    events = condition(blocks("foot", "hand", "foot"))
    for name, other in changed.items():
        assert size(output(denoiser, other) - plain) > 1e-4 * scale, name
    difference = size(output(denoiser, events) - plain)
    if form["frame_tokens"]:
        assert difference > 1e-4 * scale
    else:
        assert difference == 0  # as published: a class, no timing
    assert size(output(denoiser, window, theta=0.3) - plain) > 1e-4 * scale


@pytest.mark.parametrize("architecture", ["hybrid", "transformer"])
def test_cross_attention_looks_at_the_history(architecture):
    """What happened before the window reaches it through the tokens alone."""
    window = condition(start=20)
    history = VOCABULARY.longest_history
    frames = window.frames.clone()
    frames[:, :history] += 1
    earlier = replace(window, frames=frames)
    for cross in (True, False):
        config = with_backbone(architecture=architecture, cross_attention=cross)
        denoiser = make(config)
        change = size(output(denoiser, earlier) - output(denoiser, window))
        assert (change > 1e-5) == cross


def test_tokens_that_are_not_valid_do_not_count():
    denoiser = make(with_backbone(architecture="transformer"))
    window = condition(start=0)
    frames = window.frames.clone()
    frames[~window.valid] = 5.0
    assert torch.equal(output(denoiser, replace(window, frames=frames)), output(denoiser, window))


def test_a_withheld_condition_says_nothing():
    denoiser = make()
    one = condition().unconditional()
    other = condition(blocks("foot"), start=9, entities={"sub": "01", "task": "wm"}, t_r=1.0)
    other = replace(other, anatomy=one.anatomy).unconditional()
    other = replace(other, valid=one.valid)
    torch.testing.assert_close(output(denoiser, one), output(denoiser, other))
    hidden = replace(one, anatomy_mask=torch.zeros(1))
    elsewhere = replace(hidden, anatomy=hidden.anatomy + 3)
    assert torch.equal(output(denoiser, hidden), output(denoiser, elsewhere))


def test_without_anatomy_there_is_none():
    denoiser = make(with_backbone(anatomy=False))
    window = condition()
    flipped = replace(window, anatomy=window.anatomy.flip(2))
    assert torch.equal(output(denoiser, window), output(denoiser, flipped))


def test_widths_that_heads_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of head_width"):
        with_backbone(architecture="transformer", head_width=12)


def test_unknown_architectures_are_refused():
    with pytest.raises(ValueError, match="one of hybrid, cnn, transformer, dit, monai"):
        make(with_backbone(architecture="mlp"))


def test_a_plain_transformer_has_one_width():
    with pytest.raises(ValueError, match="expected one width"):
        with_backbone(architecture="dit")


@pytest.mark.parametrize("change", [{"prediction": "x0"}, {"noise": "pink"}])
def test_unknown_settings_are_refused(change):
    with pytest.raises(ValueError, match="expected"):
        replace(DENOISER, **change)


# The start, the gate, and what the network's output means


@pytest.mark.parametrize("architecture", ["hybrid", "cnn", "transformer"])
def test_the_start_is_the_exact_velocity_of_a_gaussian(architecture):
    """Before training v = 0, whatever comes in: what the statistics alone say."""
    denoiser, window = make(with_backbone(architecture=architecture), wild=0), condition()
    for theta in (0.2, 1.0, 1.5):
        for x in (noisy(), noisy(seed=1) * 3):
            assert not output(denoiser, window, x, theta).any()
            assert not GuidedVelocity(denoiser, window, 1.0)(x, theta).any()


class Exactly(torch.nn.Module):
    """A backbone that is a function of the noisy latents and the angle."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.patch = 2

    def encode(self, condition):
        return None

    def forward(self, x, theta, encoded):
        return self.function(x, theta.view(-1, 1, 1, 1, 1, 1))


@torch.no_grad()
def test_velocities_of_v_and_epsilon_prediction_agree():
    """ε = sin θ · x + cos θ · v, but for the share of x_0 that an inexact ε cannot tell."""
    by_v, by_epsilon = make(), make(replace(DENOISER, prediction="epsilon"))
    by_v.backbone = Exactly(lambda x, theta: (0.3 * x - 0.2) * MASK)
    by_epsilon.backbone = Exactly(
        lambda x, theta: (theta.sin() * x + theta.cos() * (0.3 * x - 0.2)) * MASK
    )
    x, window = noisy(), condition()
    for theta in (0.1, 0.8, 1.5):
        cos, sin = np.cos(theta), np.sin(theta)
        one = GuidedVelocity(by_v, window, 1.0)(x, theta)
        other = GuidedVelocity(by_epsilon, window, 1.0)(x, theta)
        unknown = EPSILON_ERROR**2 / (cos**2 + EPSILON_ERROR**2)  # nothing but near pure noise
        assert (unknown < 0.01) == (theta < 1)
        expected = one + unknown * sin * (cos * x - sin * one)
        torch.testing.assert_close(other, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("name", "steps"), [("euler", 20), ("ddim", 80)])
def test_an_inexact_epsilon_does_not_blow_samples_up(name, steps):
    """A network that is off by 2 % gives samples of the right standard deviation.

    Data and noise are Gaussians of one covariance, for which E[ε | x] = sin θ · x. Divided by
    cos θ alone, the error of the first step would be as large as the sample.
    """
    denoiser = make(replace(DENOISER, prediction="epsilon"))
    generator = torch.Generator().manual_seed(0)
    denoiser.backbone = Exactly(
        lambda x, theta: theta.sin() * x + 0.02 * torch.randn(x.shape, generator=generator)
    )
    x = noisy(10)
    velocity = GuidedVelocity(denoiser, collate([condition()] * 10), 1.0)
    sample = SAMPLERS[name](velocity, x, sampling_angles(ScheduleConfig(), steps), None)
    before, after = (float(f[..., MASK].std()) for f in (x, sample))
    assert after == pytest.approx(before, rel=0.05)


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_the_gate_scales_the_velocity(prediction):
    """Between the middles of its bands the gate is a straight line, beyond them constant."""
    denoiser, x, window = make(replace(DENOISER, prediction=prediction)), noisy(), condition()
    width = np.pi / 2 / GATE_BANDS
    middles = (torch.arange(GATE_BANDS) + 0.5) * width
    gate = torch.linspace(0, 1, GATE_BANDS) ** 2

    def velocity(theta):
        return GuidedVelocity(denoiser, window, 1.0)(x, theta)

    for theta, expected in (
        (0.0, gate[0]),
        (float(middles[2]), gate[2]),
        (float(middles[4] + width / 4), gate[4] + (gate[5] - gate[4]) / 4),
        (float(middles[-1] + width / 4), gate[-1]),
        (np.pi / 2 - 0.05, gate[-1]),
    ):
        denoiser.gate.fill_(1.0)
        whole = velocity(theta)
        denoiser.gate.copy_(gate)
        torch.testing.assert_close(velocity(theta), expected * whole, atol=1e-5, rtol=1e-4)
        assert size(whole) > 0.01


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_a_gate_of_zero_leaves_the_noise(prediction):
    denoiser, x, window = make(replace(DENOISER, prediction=prediction)), noisy(), condition()
    velocity, angles = GuidedVelocity(denoiser, window, 1.0), sampling_angles(ScheduleConfig(), 5)
    assert size(euler(velocity, x, angles, None) - x) > 0.01
    denoiser.gate.zero_()
    assert torch.equal(euler(velocity, x, angles, None), x)


# Shapes and masks


@pytest.mark.parametrize(
    ("form", "stem"),
    [("hybrid", 1), ("cnn", 1), ("transformer", 1), ("dit", 1), ("hybrid", 2), ("transformer", 2)],
)
@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 6, 7), (4, 9, 3)])
def test_any_latent_grid_fits_and_nothing_is_predicted_outside(form, stem, shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.3
    levels = {"widths": (8, 8, 16), "blocks": (1, 1, 1)} if form != "dit" else PLAIN
    config = DenoiserConfig(
        n_frames=N_FRAMES,
        backbone=replace(BACKBONE, **{**levels, "architecture": form, "stem": stem}),
    )
    denoiser = make(config, mask)
    anatomy = np.ones((2, *(2 * n for n in shape)))
    run = RunCondition(make_run(), blocks("hand"), anatomy, VOCABULARY, 40, 1 / 128)
    x = noisy(2, mask)
    found = output(denoiser, batch(run.window(0, N_FRAMES), run.window(9, N_FRAMES)), x)
    assert found.shape == x.shape
    assert (found[..., ~mask] == 0).all()
    assert (found[..., mask] != 0).float().mean() > 0.99


@torch.no_grad()
def test_windows_of_a_batch_do_not_touch_each_other():
    denoiser = make()
    windows = [condition(), condition(blocks("foot"), start=0), condition(start=22, t_r=1.0)]
    x = noisy(3)
    together = denoiser(x, torch.tensor([0.2, 0.9, 1.4]), batch(*windows))
    for i, (window, theta) in enumerate(zip(windows, (0.2, 0.9, 1.4), strict=True)):
        alone = denoiser(x[i : i + 1], torch.tensor([theta]), window)
        torch.testing.assert_close(together[i : i + 1], alone, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("stem", [1, 2])
def test_every_weight_is_used(stem):
    denoiser = make(with_backbone(stem=stem)).train()
    window = batch(condition(), condition().unconditional())
    denoiser(noisy(2), torch.tensor([0.5, 1.0]), window).square().sum().backward()
    unused = [n for n, p in denoiser.named_parameters() if p.grad is None]
    assert unused == []


def test_parameters_are_counted_by_the_configuration():
    """The default has every path; taking one away takes its weights away."""
    counts = {}
    for name, backbone in {
        "default": BackboneConfig(),
        "no cross-attention": BackboneConfig(cross_attention=False),
        "no frame tokens": BackboneConfig(frame_tokens=False),
        "no anatomy": BackboneConfig(anatomy=False),
    }.items():
        with torch.device("meta"):
            config = DenoiserConfig(backbone=backbone)
            denoiser = Denoiser(config, VOCABULARY, 4, torch.ones(8, 8, 8, dtype=torch.bool))
        counts[name] = sum(p.numel() for p in denoiser.parameters())
    assert all(counts[n] < counts["default"] for n in counts if n != "default")
    assert {f.name for f in fields(BackboneConfig)} >= {"cross_attention", "frame_tokens"}
    assert tuple(2 * n for n in LATENT) == SHAPE
