"""The autoencoder's shapes, its layout, its resampling and its linear path."""

import pytest
import torch
from torch.nn import functional as F

from fmrisynth.config.autoencoder import AdversarialConfig, VQGANConfig
from fmrisynth.errors import UsageError
from fmrisynth.model.autoencoder.discriminator import PatchDiscriminator
from fmrisynth.model.autoencoder.vqgan import VQGAN, Downsample, Upsample, fold, latent_mask, unfold
from fmrisynth.training.autoencoder import principal_blocks
from fmrisynth.training.autoencoder_losses import (
    adaptive_weight,
    explained_variance,
    hinge_discriminator,
    hinge_generator,
    reconstruction_error,
)

SMALL = {"base_width": 8, "norm_groups": 4, "codebook_size": 16}
SHAPES = [
    {**SMALL},
    {**SMALL, "multipliers": (1, 2), "patch": 2},
    {**SMALL, "multipliers": (1, 2), "patch": 2, "linear_path": True, "latent_channels": 8},
    {**SMALL, "quantizer": "none", "middle_blocks": 2, "blocks": 2},
    {**SMALL, "quantizer": "kl"},
    {**SMALL, "multipliers": (1, 2), "patch": 2, "linear_path": True, "quantizer": "kl"},
]


@pytest.mark.parametrize("settings", SHAPES)
def test_latents_are_a_quarter_along_each_axis(settings):
    config = VQGANConfig(**settings)
    net = VQGAN(config)
    x = torch.randn(2, 1, 16, 8, 24)
    z = net.encode(x)
    assert config.factor == 4
    assert z.shape == (2, config.latent_channels, 4, 2, 6)
    assert net.decode(z).shape == x.shape
    x_hat, code = net(x)
    assert x_hat.shape == x.shape
    assert code.indices.shape == (2, 4, 2, 6)


def test_samples_do_not_depend_on_their_batch():
    net = VQGAN(VQGANConfig(**SHAPES[2])).eval()
    x = torch.randn(3, 1, 8, 8, 16)
    torch.testing.assert_close(net.encode(x)[1:2], net.encode(x[1:2]))
    z = torch.randn(3, 8, 2, 2, 4)
    torch.testing.assert_close(net.decode(z)[1:2], net.decode(z[1:2]))


def test_a_volume_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"\(16, 10, 16\) is no multiple of 4"):
        VQGAN(VQGANConfig(**SMALL)).encode(torch.zeros(1, 1, 16, 10, 16))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"base_width": 20}, "norm_groups=32 does not divide"), ({"quantizer": "fsq"}, "'fsq'")],
)
def test_impossible_configurations_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        VQGANConfig(**settings)


@pytest.mark.parametrize("settings", [{"width": 6}, {"layers": 0}])
def test_impossible_discriminators_are_refused(settings):
    with pytest.raises(UsageError, match="expected a width that 4 divides"):
        AdversarialConfig(**settings)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_unfold_inverts_fold(patch):
    x = torch.randn(2, 3, 8, 4, 12)
    folded = fold(x, patch)
    assert folded.shape == (2, 3 * patch**3, 8 // patch, 4 // patch, 12 // patch)
    torch.testing.assert_close(unfold(folded, patch), x, rtol=0, atol=0)


def test_fold_keeps_blocks_of_voxels_together():
    x = torch.arange(4 * 4 * 4).reshape(1, 1, 4, 4, 4)
    assert set(fold(x, 2)[0, :, 1, 0, 1].tolist()) == set(x[0, 0, 2:, :2, 2:].flatten().tolist())


def test_latent_mask_covers_every_brain_voxel_and_no_empty_block():
    mask = torch.zeros(8, 8, 12, dtype=torch.bool)
    mask[1, 2, 3] = mask[7, 7, 8] = True
    inside = latent_mask(mask, 4)
    assert inside.nonzero().tolist() == [[0, 0, 0], [1, 1, 2]]


def test_downsample_pads_the_far_end_alone():
    """As in taming-transformers: out[i] = Σ_k w[k] x[2i + k], zero past the end."""
    layer = Downsample(1)
    torch.nn.init.zeros_(layer.conv.bias)
    x = torch.randn(1, 1, 6, 6, 6)
    padded = torch.zeros(7, 7, 7)
    padded[:6, :6, :6] = x[0, 0]
    expected = torch.stack(
        [
            (padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3, 2 * k : 2 * k + 3] * layer.conv.weight)
            .sum()
            .detach()
            for i in range(3)
            for j in range(3)
            for k in range(3)
        ]
    )
    torch.testing.assert_close(layer(x).flatten(), expected)


def test_upsample_is_nearest_neighbour_then_convolution():
    layer = Upsample(4).double()
    x = torch.randn(2, 4, 3, 5, 4, dtype=torch.float64)
    repeated = x
    for axis in (2, 3, 4):
        repeated = repeated.repeat_interleave(2, axis)
    expected = F.conv3d(repeated, layer.conv.weight, layer.conv.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_gradients_reach_every_parameter():
    net = VQGAN(VQGANConfig(**{**SHAPES[2], "quantizer": "gradient"}))
    x_hat, code = net(torch.randn(1, 1, 16, 16, 16))
    (x_hat.square().mean() + code.loss).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_decoder_sees_codes_or_latents_sample_by_sample():
    net = VQGAN(VQGANConfig(**SHAPES[1])).eval()
    x = torch.randn(2, 1, 8, 8, 8)
    x_hat, code = net(x, torch.tensor([True, False]))
    torch.testing.assert_close(x_hat[:1], net.decode(code.z_q[:1]))
    torch.testing.assert_close(x_hat[1:], net.decode(net.encode(x[1:])))
    assert not torch.allclose(x_hat[1:], net.decode(code.z_q[1:]))


def smooth_blocks(count):
    """Volumes of block-wise constants and gradients, plus a little noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 1, 3, 3, 3, generator=generator)
    x = F.interpolate(coarse, scale_factor=4.0, mode="trilinear", align_corners=False)
    return x + 0.05 * torch.randn(x.shape, generator=generator)


def test_linear_path_starts_as_principal_components():
    config = VQGANConfig(**SMALL, multipliers=(1, 2), patch=2, linear_path=True, quantizer="none")
    net, x = VQGAN(config), smooth_blocks(16)
    inside = torch.ones(3, 3, 3, dtype=torch.bool)
    components, scale = principal_blocks(x, inside, 4, 4)
    torch.testing.assert_close(components @ components.T, torch.eye(4), atol=1e-5, rtol=0)
    net.set_linear_path(components, scale)

    rows = fold(x, 4).movedim(1, -1)  # B x y z 64
    projected = unfold((rows @ components.T @ components).movedim(-1, 1), 4)
    with torch.no_grad():
        z = net.encode(x)
        torch.testing.assert_close(net.decode(z), projected, atol=1e-4, rtol=1e-3)
    spread = z.square().mean((0, 2, 3, 4)).sqrt()
    torch.testing.assert_close(spread, torch.ones(4), atol=1e-3, rtol=0)


def test_the_linear_path_follows_the_amplitude_of_a_volume():
    """A network that ends in GroupNorm alone sees the shape of a volume, hardly its size."""
    net = VQGAN(VQGANConfig(**SHAPES[2]))
    x = smooth_blocks(2)[..., :12]
    net.set_linear_path(*principal_blocks(x, torch.ones(3, 3, 3, dtype=torch.bool), 4, 8))
    torch.testing.assert_close(net.encode(3 * x), 3 * net.encode(x), rtol=1e-3, atol=1e-4)


def test_reconstruction_error_counts_the_brain_alone():
    x = torch.zeros(2, 1, 4, 4, 4)
    x_hat = torch.full_like(x, 100.0)
    mask = torch.zeros(4, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    x_hat[:, :, 0, 0, 0], x_hat[:, :, 0, 0, 1] = 3.0, -1.0
    assert reconstruction_error(x_hat, x, mask, "l1").item() == pytest.approx(2.0)
    assert reconstruction_error(x_hat, x, mask, "l2").item() == pytest.approx(5.0)


def test_explained_variance_is_one_for_the_truth_and_zero_for_nothing():
    x = torch.randn(2, 1, 4, 4, 4)
    mask = torch.ones(4, 4, 4, dtype=torch.bool)
    assert explained_variance(x, x, mask).item() == pytest.approx(1.0)
    assert explained_variance(torch.zeros_like(x), x, mask).item() == pytest.approx(0.0)
    assert explained_variance(x.bfloat16(), x, mask).dtype == torch.float32


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 1.0])
    assert hinge_discriminator(real, fake).item() == pytest.approx(0.5 * (0.5 + 1.0))
    assert hinge_generator(fake).item() == pytest.approx(0.5)


def test_adaptive_weight_balances_the_gradients():
    weight = torch.randn(5, requires_grad=True)
    reconstruction, adversarial = (weight * 6).sum(), (weight * 2).sum()
    assert adaptive_weight(reconstruction, adversarial, weight, maximum=10).item() == pytest.approx(
        3.0, rel=1e-4
    )
    assert adaptive_weight(reconstruction, adversarial, weight, maximum=2).item() == 2.0
    ratio = adaptive_weight(reconstruction, (weight * 0).sum(), weight, maximum=7)
    assert ratio.item() == 7.0
    assert not ratio.requires_grad


def test_the_discriminator_scores_patches():
    net = PatchDiscriminator(AdversarialConfig(width=8, layers=2))
    x = torch.randn(2, 1, 16, 16, 24)
    scores = net(x)
    assert scores.shape == (2, 1, 4, 4, 6)
    far = x.clone()
    far[..., 20:] += torch.randn(2, 1, 16, 16, 4)
    changed = (net(far) - scores).abs().amax((0, 1, 2, 3))
    assert changed[-1] > 3 * changed[0]  # GroupNorm alone ties distant patches


def test_the_adversarial_term_rises_after_its_start():
    config = AdversarialConfig(weight=0.4, start=0.5, warmup=0.25)
    assert [config.factor(p) for p in (0.0, 0.49, 0.5, 0.625, 0.75, 1.0)] == pytest.approx(
        [0, 0, 0, 0.2, 0.4, 0.4]
    )
    assert [config.active(p) for p in (0.49, 0.5)] == [False, True]
    assert not AdversarialConfig(weight=0.0).active(1.0)
