"""Individual differences of the evoked response, estimated from simulated participants."""

import numpy as np
import pytest
import torch
from fmrisynth.training.evoked import fit_individual_responses, start_evoked
from support.tiny_model import DENOISER, LATENT, N_FRAMES, VOCABULARY, blocks, run_condition

from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.training.windows import Windows


def fitted(amplitudes, n_runs=2, noise=0.3):
    """Fit a pathway to simulated participants whose responses to hand differ in amplitude."""
    mask = torch.ones(LATENT, dtype=torch.bool)
    pattern = {"hand": torch.zeros(LATENT), "foot": torch.zeros(LATENT)}
    pattern["hand"][2:4, 2:4], pattern["foot"][5:7, 5:7] = 2.0, 2.0
    latents, conditions, participants = [], [], []
    generator = torch.Generator().manual_seed(0)
    for number, amplitude in enumerate(amplitudes):
        for _ in range(n_runs):
            condition = run_condition(blocks("hand", "foot", "hand", "foot"), n_volumes=60)
            course = torch.from_numpy(condition.design.evoked[..., 0])
            names = [name for _, name in VOCABULARY.trial_types]
            z = noise * torch.randn(60, 1, *LATENT, generator=generator)
            for name, size in (("hand", amplitude), ("foot", 1.0)):
                z[:, 0] += size * course[:, names.index(name), None, None, None] * pattern[name]
            latents.append(z.numpy())
            conditions.append(condition)
            participants.append(f"{number:02d}")
    windows = Windows(latents, conditions, LatentSpace(1, mask), N_FRAMES, 0.5)
    denoiser = Denoiser(DENOISER, VOCABULARY, 1, mask, 2)
    start_evoked(denoiser, windows)
    fit_individual_responses(denoiser, windows, participants)
    return denoiser.evoked, conditions[0], pattern


def amplitudes_of(evoked, condition, pattern, name, count=300):
    """Amplitudes of the response to a trial type in synthetic participants."""
    window = condition.window(0, 60)
    course = window.evoked[0, :, [n for _, n in VOCABULARY.trial_types].index(name), 0]
    amplitudes = []
    with torch.no_grad():
        for seed in range(count):
            mean = evoked(window, seed)[0, :, 0][:, pattern[name] > 0].mean(1) / 2
            amplitudes.append(float(course @ mean / (course @ course)))
    return np.array(amplitudes)


@pytest.mark.parametrize("n_runs", [1, 2])
def test_synthetic_responses_differ_as_much_as_those_learned_from(n_runs):
    sizes = 1 + 0.5 * np.random.default_rng(0).standard_normal(16)
    response = fitted(sizes, n_runs)
    hand = amplitudes_of(*response, "hand")
    assert hand.mean() == pytest.approx(sizes.mean(), abs=0.12)
    assert hand.std() == pytest.approx(sizes.std(), rel=0.3)
    assert amplitudes_of(*response, "foot").std() < 0.3 * hand.std()


def test_participants_who_respond_alike_have_one_response():
    assert amplitudes_of(*fitted(np.ones(16)), "hand").std() < 0.1
