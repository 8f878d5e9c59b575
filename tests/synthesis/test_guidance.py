"""Classifier-free guidance: what it scales, and that rescaling brings the spread back."""

import numpy as np
import pytest
import torch
from support.tiny_denoiser import MASK, condition, make, noisy, size

from fmrisynth.model.denoiser.conditioning import collate
from fmrisynth.synthesis.guidance import GuidedVelocity
from fmrisynth.synthesis.sampler import euler


@torch.no_grad()
def test_rescaling_brings_the_spread_back():
    """At φ = 1 the guided output has the unguided one's spread, its direction stays."""
    denoiser, x, window = make(), noisy(3), collate([condition()] * 3)
    one = GuidedVelocity(denoiser, window, 1.0, 1.0)(x, 0.7)
    wild = GuidedVelocity(denoiser, window, 30.0)(x, 0.7)
    tame, half = (GuidedVelocity(denoiser, window, 30.0, r)(x, 0.7) for r in (1.0, 0.5))
    torch.testing.assert_close(
        GuidedVelocity(denoiser, window, 1.0)(x, 0.7), one, atol=1e-6, rtol=1e-5
    )
    spread = [v.square().sum((1, 2, 3, 4, 5)).sqrt() for v in (one, wild, tame)]
    assert (spread[1] > 1.2 * spread[0]).all()
    torch.testing.assert_close(spread[2], spread[0], atol=1e-4, rtol=1e-4)
    cosine = torch.cosine_similarity(wild.flatten(1), tame.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(half, (wild + tame) / 2, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_classifier_free_guidance_of_gaussians_scales_the_mean():
    """Of N(m, 1) given and N(0, 1) not, a scale of w makes N(w · m, 1)."""
    denoiser = make()
    mean = 1.5

    class Known(torch.nn.Module):
        patch = 2

        def encode(self, condition):
            return condition.condition_mask.view(-1, 1, 1, 1, 1, 1)

        def forward(self, x, theta, encoded):
            return -theta.sin().view(-1, 1, 1, 1, 1, 1) * mean * encoded + 0 * x

    denoiser.backbone = Known()
    for w in (0.0, 1.0, 2.5):
        guided = GuidedVelocity(denoiser, collate([condition()] * 40), w)
        noise = noisy(40) * MASK
        angles = torch.linspace(np.pi / 2, 0, 26)
        made = euler(lambda x, theta, g=guided: g(x, theta), noise, angles, None)
        inside = made[..., MASK]
        assert float(inside.mean()) == pytest.approx(w * mean, abs=0.03)
        assert float(inside.std()) == pytest.approx(float(noise[..., MASK].std()), abs=0.03)


@torch.no_grad()
def test_guidance_is_classifier_free():
    denoiser, x, window = make(), noisy(), condition()
    none = GuidedVelocity(denoiser, window.unconditional(), 1.0)(x, 0.7)
    one, three = (GuidedVelocity(denoiser, window, g)(x, 0.7) for g in (1.0, 3.0))
    torch.testing.assert_close(three, none + 3 * (one - none), atol=1e-4, rtol=1e-3)
    assert size(three - one) > 1e-4


@torch.no_grad()
def test_a_network_without_a_say_is_not_asked():
    """What it would have said is multiplied by zero."""
    denoiser, x, window = make(), noisy(), condition()
    denoiser.gate.zero_()
    angles = torch.full((len(x),), 0.7)
    asked = denoiser.as_velocity(x, angles, denoiser(x, angles, window))
    denoiser.backbone.forward = None
    silent = GuidedVelocity(denoiser, window, 1.0)(x, 0.7)
    assert torch.equal(silent, asked)
    assert not silent.any()
    denoiser.gate[3] = 0.5
    with pytest.raises(TypeError):
        GuidedVelocity(denoiser, window, 1.0)(x, 0.7)
