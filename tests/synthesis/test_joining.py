"""Windows that are sampled together join without seams."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_model import (
    DENOISER,
    N_FRAMES,
    NO_RESPONSE,
    RESPONSE,
    blocks,
    latents_of,
    make_model,
    run_condition,
)

from fmrisynth.config.model import SamplingConfig
from fmrisynth.model.noise.protocol import NoiseModel
from fmrisynth.synthesis.windows import window_starts

EVENTS = blocks("hand", "foot", "hand")


def differences(latents):
    """Root mean square of what changes from each frame to the next."""
    return latents.diff(dim=0).square().flatten(1).mean(1).sqrt().numpy()


def joints(n_volumes, stride):
    starts = window_starts(n_volumes, N_FRAMES, stride)
    edges = {*starts.tolist(), *(starts + N_FRAMES).tolist()} - {0, n_volumes}
    found = np.zeros(n_volumes - 1, bool)
    found[np.array(sorted(edges)) - 1] = True
    return found


class ExactGaussian(torch.nn.Module):
    """What a network learns from latents that are slower than the noise, both AR(1).

    v = sin θ cos θ (Σ_ε − Σ_0) (cos² θ Σ_0 + sin² θ Σ_ε)⁻¹ x within a window, which knows
    nothing of what lies outside of it: the case in which windows disagree at their ends.
    """

    patch = 2

    def __init__(self, signal, noise):
        super().__init__()
        self.signal, self.noise = signal, noise

    def encode(self, condition):
        return None

    def forward(self, x, theta, encoded):
        cos, sin = torch.cos(theta[0]).double(), torch.sin(theta[0]).double()
        lags = torch.arange(x.shape[1], dtype=torch.float64)
        distance = (lags[:, None] - lags).abs()
        # 0⁰ is 1: a lag-1 correlation of 0 is white noise
        signal, noise = self.signal**distance, torch.tensor(self.noise).double() ** distance
        filtered = (noise - signal) @ torch.linalg.inv(cos**2 * signal + sin**2 * noise)
        return torch.einsum("ts,bscxyz->btcxyz", (sin * cos * filtered).to(x), x)


class Autoregressive(NoiseModel):
    """AR(1) noise, white in space."""

    def __init__(self, mask, lag1):
        super().__init__()
        self.mask, self.lag1 = mask, lag1

    def fit(self, fields, removed):
        return self

    def sample_run(self, n_frames, t_r, generator, participant_seed=0):
        noise = torch.randn(n_frames, 1, *self.mask.shape, generator=generator)
        for t in range(1, n_frames):
            noise[t] = self.lag1 * noise[t - 1] + (1 - self.lag1**2) ** 0.5 * noise[t]
        return noise * self.mask

    def sample_window(self, n_frames, generator, participant_seed=0):
        return self.sample_run(n_frames, 2.0, generator)


def slow_model(responds, signal, noise):
    model = make_model(replace(DENOISER, noise="white"), RESPONSE if responds else NO_RESPONSE)
    model.denoiser.backbone = ExactGaussian(signal, noise)
    model.noise = Autoregressive(model.latent_space.mask, noise)
    return model


# lag-1 correlation of the latents and of the noise: as with fitted noise, and white noise
AUTOCORRELATIONS = pytest.mark.parametrize(("signal", "noise"), [(0.75, 0.6), (0.9, 0.0)])


@torch.no_grad()
@AUTOCORRELATIONS
@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("responds", [True, False])
def test_a_run_of_three_windows_has_no_seams(responds, stride, signal, noise):
    """Frame-to-frame differences at window joints lie within the spread of the others."""
    model = slow_model(responds, signal, noise)
    n_volumes, sampling = 3 * N_FRAMES, SamplingConfig(steps=15, stride=stride)
    at_joints = joints(n_volumes, stride)
    condition = run_condition(EVENTS, n_volumes=n_volumes)
    alone = run_condition(EVENTS, n_volumes=N_FRAMES)
    found, cut = [], []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        found.append(differences(latents_of(model, condition, sampling, generator)))
        pieces = [latents_of(model, alone, sampling, generator) for _ in range(3)]
        cut.append(differences(torch.cat(pieces)))
    for row in found:
        others = row[~at_joints]
        assert abs(row[at_joints].mean() - others.mean()) < 2 * others.std()
    ratio = np.mean(found, axis=0)[at_joints].mean() / np.mean(found, axis=0)[~at_joints].mean()
    assert ratio == pytest.approx(1, abs=0.08)
    # windows made apart and put behind each other do show: the measure sees seams
    apart = np.zeros(n_volumes - 1, bool)
    apart[[N_FRAMES - 1, 2 * N_FRAMES - 1]] = True
    assert np.mean(cut, axis=0)[apart].min() > 1.2 * np.mean(cut, axis=0)[~apart].max()


@torch.no_grad()
@AUTOCORRELATIONS
@pytest.mark.parametrize("stride", [2, 4])
def test_a_long_run_has_the_variance_and_autocorrelation_of_its_windows(stride, signal, noise):
    """Averaging windows takes little off where many of them overlap."""
    model, sampling = slow_model(False, signal, noise), SamplingConfig(steps=15, stride=stride)
    condition = run_condition(EVENTS, n_volumes=3 * N_FRAMES)
    drawn = torch.stack(
        [
            latents_of(model, condition, sampling, torch.Generator().manual_seed(seed))
            for seed in range(8)
        ]
    )[..., model.latent_space.mask][:, :, 0]  # draws, frames, voxels
    power = drawn.square().mean((0, 2))
    lag1 = (drawn[:, 1:] * drawn[:, :-1]).mean() / drawn.square().mean()
    assert float(power.max() / power.min()) < 1.3
    assert float(power.mean()) == pytest.approx(1, abs=0.15)
    assert float(lag1) == pytest.approx(signal, abs=0.04)
