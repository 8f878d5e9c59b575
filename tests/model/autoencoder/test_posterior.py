"""Latents are drawn from their Gaussian, and pay for what it says."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.errors import UsageError
from fmrisynth.model.autoencoder.posterior import GaussianPosterior
from fmrisynth.model.autoencoder.vqgan import VQGAN

SHAPE = (2, 3, 4, 4, 4)


def moments(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *SHAPE, generator=generator).unbind()


def test_the_penalty_is_the_divergence_from_a_standard_gaussian():
    mean, log_variance = moments()
    code = GaussianPosterior(0.1)(mean, log_variance, None)
    one = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(code.loss, 0.1 * one.sum() / len(mean))
    standard = GaussianPosterior(1.0)(torch.zeros(SHAPE), torch.zeros(SHAPE), None)
    assert float(standard.loss) == 0


def test_draws_have_the_mean_and_the_spread_of_their_gaussian():
    mean, log_variance = (m[:1].expand(4000, *SHAPE[1:]) for m in moments())
    torch.manual_seed(0)
    code = GaussianPosterior(1.0)(mean, log_variance, None)
    assert code.z.equal(mean)
    spread = (0.5 * log_variance[0]).exp()
    torch.testing.assert_close(code.z_q.std(0) / spread, torch.ones_like(spread), atol=0.06, rtol=0)
    assert ((code.z_q.mean(0) - mean[0]).abs() < 6 * spread / 4000**0.5).all()


def test_what_lies_outside_of_the_brain_costs_nothing():
    mean, log_variance = moments()
    inside = torch.zeros(SHAPE[2:], dtype=torch.bool)
    inside[1] = True
    far = torch.where(inside, mean, 100 * mean)
    posterior = GaussianPosterior(1.0)
    assert posterior(far, log_variance, inside).loss == posterior(mean, log_variance, inside).loss


def test_encoding_gives_the_mean_alone_and_gradients_reach_both_moments():
    net = VQGAN(VQGANConfig(base_width=8, norm_groups=4, quantizer="kl"))
    x = torch.randn(2, 1, 8, 8, 8)
    assert net.encode(x).equal(net.encode(x))
    x_hat, code = net(x)
    torch.testing.assert_close(code.z, net.encode(x))
    (x_hat.square().mean() + code.loss).backward()
    gradient = net.quant_conv.weight.grad
    assert all(half.abs().sum() > 0 for half in gradient.chunk(2))
    assert "quantize.embedding.weight" not in net.state_dict()


def test_there_are_no_codes_to_decode():
    with pytest.raises(UsageError, match="expected a codebook"):
        VQGANConfig(quantizer="kl", decode_codes=True)
