"""The decoder noise: what the autoencoder does to variance, noise and evoked responses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from support.tiny_model import SHAPE, ball, blocks, make_model, run_condition

from fmrisynth.model.codec import encode_run
from fmrisynth.model.noise.autocovariance import NO_DRIFT
from fmrisynth.training.decoder_noise import (
    ReconstructionSums,
    burst_share,
    fit_decoder_noise,
)

VOXELS = 400
FREEDOM = 4  # HRF and derivative of the two trial types that occur


def regressors(n_frames, count=3, seed=0):
    """Smooth random courses, each of unit variance."""
    white = np.random.default_rng(seed).standard_normal((n_frames + 4, count))
    courses = np.stack([white[i : i + n_frames] for i in range(5)]).sum(0)
    return (courses - courses.mean(0)) / courses.std(0)


def both(x):
    """Regressors (T, K, 2): the courses by the HRF, none by its derivative."""
    return np.stack([x, np.zeros_like(x)], axis=2)


def sums_of(gain, noise_gain, *, runs=4, n_frames=200, effect=0.1):
    """Sums over runs whose effects are decoded with one gain and whose noise with another."""
    rng = np.random.default_rng(1)
    effects = effect * rng.standard_normal((3, VOXELS))
    sums = ReconstructionSums(3)
    for run in range(runs):
        x = regressors(n_frames, seed=run)
        evoked, noise = x @ effects, rng.standard_normal((n_frames, VOXELS))
        sums.add(evoked + noise, gain * evoked + noise_gain * noise, both(x), np.ones(VOXELS))
    return sums


@pytest.mark.parametrize("gain", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("noise_gain", [0.1, 0.9])
def test_the_evoked_gain_is_that_of_the_effects_alone(gain, noise_gain):
    """Noise that the autoencoder keeps more or less of than of effects does not count."""
    assert sums_of(gain, noise_gain).evoked_gain() == pytest.approx(gain, abs=0.03)


def test_the_evoked_gain_stays_within_its_limits():
    assert sums_of(0.05, 0.1).evoked_gain() == 0.25
    assert sums_of(1.5, 0.1).evoked_gain() == 1.0


def test_without_effects_the_evoked_gain_is_one():
    sums = ReconstructionSums(3)
    nothing = np.zeros((50, VOXELS))
    sums.add(nothing, nothing, both(regressors(50)), np.ones(VOXELS))
    assert sums.evoked_gain() == 1.0


@pytest.mark.parametrize("lag1", [0.0, 0.5])
def test_the_lag_of_the_error_is_that_of_its_process(lag1):
    rng = np.random.default_rng(0)
    error = rng.standard_normal((400, VOXELS))
    for t in range(1, len(error)):
        error[t] = lag1 * error[t - 1] + (1 - lag1**2) ** 0.5 * error[t]
    decoded = rng.standard_normal(error.shape)
    sums = ReconstructionSums(3)
    sums.add(decoded + error, decoded, both(regressors(len(error))), np.ones(VOXELS))
    assert sums.lag1(NO_DRIFT) == pytest.approx(lag1, abs=0.02)
    assert np.sqrt(sums.error.mean() / sums.freedom) == pytest.approx(1, abs=0.02)
    assert np.sqrt(sums.decoded.mean() / sums.freedom) == pytest.approx(1, abs=0.02)


def test_standard_deviations_are_those_of_a_typical_run_without_responses():
    """A run three times as loud counts as one of level 1; strong responses are no noise."""
    rng, x = np.random.default_rng(0), regressors(300)
    effects = 5 * rng.standard_normal((3, VOXELS))
    level = np.where(np.arange(VOXELS) < 200, 1.0, 3.0)
    sums = ReconstructionSums(3)
    for _ in range(2):
        decoded = level * rng.standard_normal((300, VOXELS)) + x @ effects
        error = 0.5 * level * rng.standard_normal((300, VOXELS))
        sums.add(decoded + error, decoded, both(x), level)
    decoded_sd, error_sd = (np.sqrt(s / sums.freedom) for s in (sums.decoded, sums.error))
    assert decoded_sd.mean() == pytest.approx(1, abs=0.02)
    assert error_sd.mean() == pytest.approx(0.5, abs=0.01)
    assert decoded_sd[:200].mean() == pytest.approx(decoded_sd[200:].mean(), rel=0.02)


def test_an_autoencoder_that_averages_blocks_halves_a_response_of_half_a_block():
    """Closed form: 2³ means keep 1/2 of it where it is; the other half is the error."""
    model = make_model()
    condition = run_condition(blocks("hand", "foot", "hand"), n_volumes=60)
    active = np.zeros(SHAPE, bool)
    active[::2] = True  # every second voxel along x: half of each block
    course = condition.design.evoked[:, 1, 0]  # hand
    # not zero elsewhere, where a run would have no data
    amplitude = np.where(active & ball(), 1.0, 1e-6)
    frames = (course[:, None, None, None] * amplitude).astype(np.float32)
    inside = np.zeros(SHAPE, bool)  # blocks that lie in the brain with all of their voxels
    inside[4:12, 4:12, 4:12] = True
    frames *= inside
    data = SimpleNamespace(
        grid=SimpleNamespace(mask=inside, shape=SHAPE),
        runs=[SimpleNamespace(frames=frames, noise_sd=np.ones(SHAPE, np.float32))],
        conditions=[condition],
        vocabulary=model.info.vocabulary,
        scale=2.0,
        removed_basis=NO_DRIFT,
    )
    latents = [encode_run(model.autoencoder, frames, data.scale, inside)]
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    noise = fit_decoder_noise(
        model.autoencoder, latents, data, model.noise_level, None, seed=0, fabric=fabric
    )
    assert float(noise.evoked_gain) == pytest.approx(0.5, abs=1e-3)
    assert float(noise.coarse_gain) == pytest.approx(1, abs=1e-3)  # means of blocks are kept
    # all that is decoded is response; half of what there is is lost
    assert noise.decoded_sd[inside].numpy() == pytest.approx(0, abs=1e-3)
    error = np.sqrt(np.square(course - course.mean()).sum() / (len(course) - FREEDOM)) / 2
    error *= np.sqrt(1 - FREEDOM / len(course))
    assert noise.error_sd[inside].numpy() == pytest.approx(error, rel=1e-3)
    assert not noise.error_sd[torch.from_numpy(~inside)].any()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_errors_share_of_bursts_is_that_of_their_logarithms(share):
    rng = np.random.default_rng(1)
    intensities, energies = [], []
    for level in (1.0, 3.0):  # which is no burst
        intensity = np.exp(0.4 * rng.standard_normal(200))
        error = level * intensity[:, None] ** share * rng.standard_normal((200, 400))
        intensities.append(intensity)
        energies.append(0.5 * np.log(np.square(error).mean(1)))
    assert burst_share(intensities, energies) == pytest.approx(share, abs=0.02)
    assert burst_share([np.ones(200)], [np.zeros(200)]) == 0
