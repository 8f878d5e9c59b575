"""The response model: linear in the events, the group's own without anatomy, blind to latents."""

import inspect

import numpy as np
import pytest
import torch
from support.tiny_model import LATENT, N_FRAMES, SHAPE, blocks, perturb, run_condition

from fmrisynth.config.diffusion import ResponseConfig
from fmrisynth.model.response import IndividualResponse, Response

CHANNELS, TYPES, FACTOR = 2, 4, 2
MASK = torch.ones(LATENT, dtype=torch.bool)
MASK[0] = False


def make(kind="network", *, seed=0, wild=0.3):
    """A response model whose every number was drawn."""
    config = ResponseConfig(kind=kind, rank=3, width=4, individual_fields=2)
    response = Response(config, TYPES, CHANNELS, MASK, FACTOR)
    generator = torch.Generator().manual_seed(seed)
    for buffer in (response.maps, response.coefficients):
        buffer.copy_(torch.randn(buffer.shape, generator=generator))
    response.maps *= MASK
    if response.individual is not None:
        perturb(response.individual, wild)
        response.individual.amplitude.fill_(0.7)
        response.individual.anatomy_mean.fill_(1.0)
        response.individual.anatomy_sd.fill_(0.2)
    return response


def mean_image(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 1 + 0.2 * torch.randn(SHAPE, generator=generator)


def regressors(events=None):
    condition = run_condition(blocks("hand", "foot") if events is None else events)
    return torch.from_numpy(condition.design.evoked)


@pytest.mark.parametrize("kind", ["network", "glm"])
@torch.no_grad()
def test_no_events_evoke_nothing(kind):
    response = make(kind)
    zero = torch.zeros(N_FRAMES, TYPES, 2)
    deviation = 0.1 * torch.randn(TYPES, 2, CHANNELS, *LATENT)
    for mean in (None, mean_image()):
        assert not response(zero, mean).any()
        assert not response.synthetic(zero, mean, deviation).any()
        assert response(regressors(), mean).abs().max() > 0.1
        assert response.synthetic(regressors(), mean, None).abs().max() > 0.1


@torch.no_grad()
def test_the_response_is_linear_in_the_amplitude_of_events():
    response, mean = make(), mean_image()
    hand, foot = regressors(blocks("hand")), regressors(blocks("foot", first=12.0))
    one = response(hand, mean)
    torch.testing.assert_close(response(2.5 * hand, mean), 2.5 * one)
    both = response(hand - 2 * foot, mean)
    torch.testing.assert_close(both, one - 2 * response(foot, mean), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_response_is_the_sum_that_the_equation_says():
    response, mean, evoked = make(), mean_image(), regressors()
    maps, expected = response.maps_of(mean), torch.zeros(len(evoked), CHANNELS, *LATENT)
    for v in range(TYPES):
        for d in range(2):
            for j in range(3):
                course = evoked[:, v, d] * response.coefficients[v, d, j]
                expected += course[:, None, None, None, None] * maps[j]
    torch.testing.assert_close(response(evoked, mean), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_without_a_mean_image_the_maps_are_the_groups():
    response = make()
    assert torch.equal(response.maps_of(None), response.maps)
    assert (response.maps_of(mean_image()) - response.maps).abs().max() > 0.01
    assert torch.equal(make("glm").maps_of(mean_image()), make("glm").maps)


@torch.no_grad()
def test_the_average_anatomy_and_an_amplitude_of_zero_change_nothing_learned():
    """At the training participants' mean every feature is zero; biases alone could deviate."""
    response = make()
    for layer in (response.individual.local, response.individual.head):
        layer.bias.zero_()
    average = torch.ones(SHAPE)
    torch.testing.assert_close(response.maps_of(average), response.maps)
    response.individual.amplitude.zero_()
    assert torch.equal(response.maps_of(mean_image()), response.maps)


@torch.no_grad()
def test_an_unlearned_network_predicts_no_deviation():
    response = make()
    response.individual.start(0)
    torch.testing.assert_close(response.maps_of(mean_image()), response.maps)


@torch.no_grad()
def test_a_start_is_the_same_for_the_same_seed_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    starts = []
    for seed in (1, 2, 1):
        network = IndividualResponse(CHANNELS, MASK, FACTOR, 4)
        network.start(seed)
        starts.append(network.local.weight.clone())
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])
    torch.set_rng_state(state)
    network.start(3)
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_deviations_are_gains_and_displacements_that_all_maps_share():
    """A gain matrix of c everywhere multiplies the maps; a shift of one voxel moves them."""
    response = make()
    network = response.individual
    for parameter in network.parameters():
        parameter.zero_()
    features = torch.zeros(1, FACTOR**3, *LATENT)
    network.head.bias[: CHANNELS**2] = 0.5 * torch.eye(CHANNELS).flatten()
    torch.testing.assert_close(network(features, response.maps)[0], 0.5 * response.maps)
    network.head.bias[: CHANNELS**2] = 0
    network.head.bias[CHANNELS**2 + 1] = 1.0  # along y
    found = network(features, response.maps)[0]
    expected = (response.maps.roll(-1, 3) - response.maps.roll(1, 3)) / 2 * MASK
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_nothing_is_evoked_outside_the_brain():
    response = make()
    assert (response(regressors(), mean_image())[..., ~MASK] == 0).all()


# Synthetic participants


@torch.no_grad()
def test_a_deviation_is_added_to_what_anatomy_foretells():
    response, mean = make(), mean_image()
    evoked = regressors()
    deviation = torch.randn(TYPES, 2, CHANNELS, *LATENT)
    added = response.synthetic(evoked, mean, deviation) - response.synthetic(evoked, mean, None)
    torch.testing.assert_close(
        added, torch.einsum("nvd,vdcxyz->ncxyz", evoked, deviation), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_a_synthetic_response_is_the_prediction_with_the_energy_of_true_maps():
    response, mean, evoked = make(), mean_image(), regressors()
    torch.testing.assert_close(
        response.synthetic(evoked, mean, None), response(evoked, mean), atol=1e-4, rtol=1e-4
    )
    response.restored.fill_(1.5)
    torch.testing.assert_close(
        response.synthetic(evoked, mean, None), 1.5 * response(evoked, mean), atol=1e-4, rtol=1e-4
    )


# What it sees


def test_it_sees_events_and_anatomy_alone():
    """No noisy latents, and no angle: it is exact at every noise level of the diffusion."""
    assert list(inspect.signature(Response.forward).parameters) == [
        "self",
        "evoked",
        "mean",
    ]
    assert list(inspect.signature(Response.maps_of).parameters) == ["self", "mean"]


def test_without_a_response_model_there_is_no_network():
    assert not make("none").present
    assert make("none").individual is None
    assert make("glm").individual is None
    assert make("network").present
    assert not list(make("glm").parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "linear"}, "expected network, glm or none"),
        ({"rank": 0}, "at least 1"),
        ({"width": 0}, "at least 1"),
        ({"steps": -1}, "at least 0"),
        ({"individual_fields": -1}, "at least 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ResponseConfig(**change)


def test_mean_images_are_folded_block_by_block():
    network = IndividualResponse(CHANNELS, MASK, FACTOR, 4)
    image = torch.arange(np.prod(SHAPE)).view(1, *SHAPE).float()
    folded = network.fold(image)
    assert folded.shape == (1, FACTOR**3, *LATENT)
    torch.testing.assert_close(folded[0, :, 2, 3, 4], image[0, 4:6, 6:8, 8:10].flatten())
