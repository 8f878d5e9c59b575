"""The diffusion loss and the targets of the regression phase, against closed forms."""

import numpy as np
import pytest
import torch
from support.tiny_denoiser import CHANNELS, MASK, condition, noisy
from support.tiny_model import LATENT

from fmrisynth.training.diffusion_loss import Regression, diffusion_loss


@torch.no_grad()
def test_the_losses_of_v_and_epsilon_differ_by_the_squared_cosine():
    """ε − ε̂ = cos θ · (v − v̂) for the same belief about x_0."""
    x0, noise, window = noisy(seed=2), noisy(seed=3), condition()

    def belief(x, theta, _condition=None):
        return 0.3 * x + 0.1 * theta.view(-1, 1, 1, 1, 1, 1)

    def as_epsilon(x, theta, _condition):
        cos, sin = theta.cos(), theta.sin()
        return sin * x + cos * belief(x, theta)

    for theta in (0.4, 1.2):
        angle = torch.tensor([theta])
        of_v = diffusion_loss(belief, "v", x0, noise, angle, window, MASK)
        of_epsilon = diffusion_loss(as_epsilon, "epsilon", x0, noise, angle, window, MASK)
        assert float(of_epsilon) == pytest.approx(np.cos(theta) ** 2 * float(of_v), rel=1e-4)


@torch.no_grad()
def test_the_loss_is_a_mean_over_the_brain():
    """Zero for the true velocity, one for an error of one inside the brain."""
    x0, noise, window = noisy(3, seed=2), noisy(3, seed=3), condition()
    theta = torch.tensor([0.3, 0.9, 1.4])
    cos, sin = theta.cos().view(-1, 1, 1, 1, 1, 1), theta.sin().view(-1, 1, 1, 1, 1, 1)
    truth = cos * noise - sin * x0
    for error in (0.0, 1.0, 2.0):
        loss = diffusion_loss(
            lambda x, t, c, e=error: truth + e * MASK, "v", x0, noise, theta, window, MASK
        )
        assert float(loss) == pytest.approx(error**2, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_regression_replaces_the_target(prediction):
    """A share of 1 makes the loss zero for what regression says, and for nothing else."""
    x0, noise, window = noisy(3, seed=2), noisy(3, seed=3), condition()
    mean, theta = 0.2 * noisy(3, seed=4), torch.tensor([0.4, 1.3, 1.5])
    cos, sin = (f.view(-1, 1, 1, 1, 1, 1) for f in (theta.cos(), theta.sin()))
    share = torch.ones(3)

    def exactly(x, _theta, _condition):
        return -sin * mean if prediction == "v" else (x - cos * mean) / sin

    def loss(function, share):
        regression = Regression(mean, share)
        return float(
            diffusion_loss(function, prediction, x0, noise, theta, window, MASK, regression)
        )

    assert loss(exactly, share) == pytest.approx(0, abs=1e-10)
    # an error of one counts 1 for v, and for ε the error of the v that follows from it
    expected = 1.0 if prediction == "v" else float((cos.clamp(min=0.05) ** -2).mean())
    off = loss(lambda *given: exactly(*given) + 1.0 * MASK, share)
    assert off == pytest.approx(expected, rel=1e-4)
    # without a share it is the diffusion's loss
    plain = diffusion_loss(exactly, prediction, x0, noise, theta, window, MASK)
    assert loss(exactly, torch.zeros(3)) == pytest.approx(float(plain), rel=1e-5)
    assert float(plain) > 0.1


@torch.no_grad()
def test_regression_and_diffusion_have_the_same_optimum():
    """Between them targets are mixed: their expectation does not change."""
    generator = torch.Generator().manual_seed(0)
    mean, window = 0.5, condition()
    x0 = mean + torch.randn(400, 2, CHANNELS, *LATENT, generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    theta = torch.full((400,), 1.1)
    least = []
    for share in (0.0, 0.5, 1.0):
        regression = Regression(torch.full_like(x0, mean), torch.full((400,), share))
        losses = [
            float(
                diffusion_loss(
                    lambda x, t, c, b=b: b * torch.ones_like(x),
                    "v", x0, noise, theta, window, MASK, regression,
                )
            )
            for b in (-1.0, 0.0, 1.0)
        ]  # fmt: skip
        # the losses of constants lie on a parabola
        least.append((losses[0] - losses[2]) / (2 * (losses[0] + losses[2] - 2 * losses[1])))
    assert least == pytest.approx([-np.sin(1.1) * mean] * 3, abs=0.01)
