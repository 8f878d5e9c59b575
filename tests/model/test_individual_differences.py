"""How people differ: what is reliable is kept, noise is not, and nobody is copied."""

import numpy as np
import pytest
import torch
from support.tiny_model import DENOISER, LATENT, N_FRAMES, VOCABULARY, blocks, run_condition

from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.individual_differences import (
    draw_difference,
    individual_components,
    split_halves,
)
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.training.evoked import fit_individual_responses, start_evoked
from fmrisynth.training.windows import Windows

PEOPLE, SHAPE = 40, (6, 4)
ONE_GROUP = torch.zeros(SHAPE, dtype=torch.int64)


def measured(true, noise, seed=0):
    """Two noisy measurements of what is true of each person."""
    generator = torch.Generator().manual_seed(seed)
    return [true + noise * torch.randn(true.shape, generator=generator) for _ in range(2)]


def true_differences(seed=1):
    """Differences of unit variance in the first three rows; nothing in the others."""
    true = torch.randn(PEOPLE, *SHAPE, generator=torch.Generator().manual_seed(seed))
    true[:, 3:] = 0
    return true


def variance(components, count=4000):
    return torch.stack([draw_difference(components, p) for p in range(count)]).square().mean(0)


def test_new_people_differ_as_much_as_people_do():
    true = true_differences()
    for noise in (0.0, 0.5, 1.0):
        components = individual_components(*measured(true, noise), ONE_GROUP, PEOPLE)
        assert float(variance(components).mean()) == pytest.approx(0.5, rel=0.25), noise


def test_elements_are_told_apart_by_group():
    rows = torch.arange(SHAPE[0])[:, None].expand(SHAPE)
    found = variance(individual_components(*measured(true_differences(), 1.0), rows, PEOPLE))
    assert float(found[:3].mean()) == pytest.approx(1, rel=0.25)
    assert float(found[3:].mean()) < 0.15


def test_noise_alone_makes_no_differences():
    components = individual_components(
        *measured(torch.zeros(PEOPLE, *SHAPE), 1.0), ONE_GROUP, PEOPLE
    )
    assert float(variance(components).mean()) < 0.15


def test_differences_go_together_as_in_people():
    shared = torch.randn(PEOPLE, 1, 1, generator=torch.Generator().manual_seed(3))
    components = individual_components(*measured(shared.expand(PEOPLE, *SHAPE), 0.3), ONE_GROUP, 4)
    drawn = torch.stack([draw_difference(components, p) for p in range(500)]).flatten(1)
    assert float(torch.corrcoef(drawn.T).min()) > 0.7


def test_a_person_is_the_same_by_its_seed():
    components = individual_components(*measured(true_differences(), 0.3), ONE_GROUP, 8)
    assert torch.equal(draw_difference(components, 5), draw_difference(components, 5))
    assert not torch.equal(draw_difference(components, 5), draw_difference(components, 6))


@pytest.mark.parametrize("n_people", [1, 2])
def test_of_too_few_people_nothing_is_said(n_people):
    values = torch.randn(n_people, *SHAPE)
    assert not individual_components(values, values, ONE_GROUP, 4).any()
    assert individual_components(values, values, ONE_GROUP, 0).shape == (0, *SHAPE)


def test_split_halves():
    assert split_halves([1, 2, 3, 4, 5]) == ([1, 3, 5], [2, 4])


# Evoked responses


def study(amplitudes, n_runs=2, noise=0.3):
    """A fitted pathway of people whose responses to hand differ in size; latents are made here."""
    mask = torch.ones(LATENT, dtype=torch.bool)
    pattern = {"hand": torch.zeros(LATENT), "foot": torch.zeros(LATENT)}
    pattern["hand"][2:4, 2:4], pattern["foot"][5:7, 5:7] = 2.0, 2.0
    latents, conditions, people = [], [], []
    generator = torch.Generator().manual_seed(0)
    for person, amplitude in enumerate(amplitudes):
        for _ in range(n_runs):
            condition = run_condition(blocks("hand", "foot", "hand", "foot"), n_volumes=60)
            course = torch.from_numpy(condition.design.evoked[..., 0])
            names = [name for _, name in VOCABULARY.trial_types]
            z = noise * torch.randn(60, 1, *LATENT, generator=generator)
            for name, size in (("hand", amplitude), ("foot", 1.0)):
                z[:, 0] += size * course[:, names.index(name), None, None, None] * pattern[name]
            latents.append(z.numpy())
            conditions.append(condition)
            people.append(f"{person:02d}")
    windows = Windows(latents, conditions, LatentSpace(1, mask), N_FRAMES, 0.5)
    denoiser = Denoiser(DENOISER, VOCABULARY, 1, mask, 2)
    start_evoked(denoiser, windows)
    fit_individual_responses(denoiser, windows, people)
    return denoiser.evoked, conditions[0], pattern


def amplitudes_of(evoked, condition, pattern, name, people=300):
    """Size of the response to a trial type in people that do not exist."""
    window = condition.window(0, 60)
    course = window.evoked[0, :, [n for _, n in VOCABULARY.trial_types].index(name), 0]
    found = []
    with torch.no_grad():
        for person in range(people):
            mean = evoked(window, person)[0, :, 0][:, pattern[name] > 0].mean(1) / 2
            found.append(float(course @ mean / (course @ course)))
    return np.array(found)


@pytest.mark.parametrize("n_runs", [1, 2])
def test_responses_of_new_people_are_as_different_as_those_learned_from(n_runs):
    sizes = 1 + 0.5 * np.random.default_rng(0).standard_normal(16)
    made = study(sizes, n_runs)
    hand = amplitudes_of(*made, "hand")
    assert hand.mean() == pytest.approx(sizes.mean(), abs=0.12)
    assert hand.std() == pytest.approx(sizes.std(), rel=0.3)
    assert amplitudes_of(*made, "foot").std() < 0.3 * hand.std()


def test_people_who_respond_alike_have_one_response():
    assert amplitudes_of(*study(np.ones(16)), "hand").std() < 0.1
