"""The prior of the individual differences finds what there is, and nothing where there is none."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.latent_world import MASK, NAMES, fit_response_of, patterns, simulate
from support.tiny_model import SHAPE, affine_of, ball, make_model

from fmrisynth.config.diffusion import ResponseConfig
from fmrisynth.model.individuals import FAMILIES
from fmrisynth.preprocess.grid import Grid
from fmrisynth.training.individuals import map_gradients, smooth_fields

CONFIG = ResponseConfig(kind="glm", rank=4, width=4, steps=0, individual_fields=6)
HAND = NAMES.index("hand")


def sd_of(response, name):
    return float(response.prior.sd[FAMILIES.index(name)])


def test_participants_whose_gains_differ_are_found_to_differ_as_much(tmp_path):
    gains = 1 + 0.4 * np.random.default_rng(0).standard_normal(24)
    made = simulate(gains[:, None, None] * patterns(), noise=0.3, n_volumes=60)
    response, _ = fit_response_of(made, tmp_path, CONFIG)
    inference = response.inference()
    generator = torch.Generator().manual_seed(0)
    nobody = inference.posterior(None)
    hand = patterns()[HAND]
    size = [
        inference.deviation(nobody.draw(generator))[HAND, 0, 0][MASK].numpy() @ hand / (hand @ hand)
        for _ in range(300)
    ]
    assert np.std(size) == pytest.approx(gains.std(), rel=0.3)
    assert sd_of(response, "displacement") < 1.0


@pytest.mark.parametrize("seed", [0, 1])
def test_participants_who_respond_alike_have_one_response(tmp_path, seed):
    made = simulate(np.repeat(patterns()[None], 16, 0), noise=1.0, seed=seed)
    response, _ = fit_response_of(made, tmp_path, CONFIG)
    inference = response.inference()
    drawn = inference.deviation(inference.posterior(None).draw(torch.Generator().manual_seed(0)))[
        :, 0, 0
    ][:, MASK]
    assert float(drawn.square().sum()) < 0.03 * np.square(patterns()).sum()


def test_a_participants_other_runs_foretell_its_deviation(tmp_path):
    """Of participants that nothing was learned from; others' evidence says nothing."""
    rng = np.random.default_rng(1)
    gains = 1 + 0.5 * rng.standard_normal((30, len(NAMES), 1))
    maps = gains * patterns()
    learned = simulate(maps[:22], noise=0.5)
    response, _ = fit_response_of(learned, tmp_path, CONFIG)
    inference, new = response.inference(), simulate(maps[22:], noise=0.5, seed=5)
    expected = response.expectation(None)[..., MASK].flatten(2).flatten(0, 1).double()
    found, true = [], maps[22:] - maps[:22].mean(0)
    for index in range(0, len(new.runs), 2):  # the first run of each participant
        x, z = new.runs.regressors(index), new.runs.standardised(index)
        moments = torch.from_numpy(x.T @ x).double()
        residual = torch.from_numpy(x.T @ z).double() - moments @ expected
        mean = inference.posterior(inference.evidence(moments, residual)).mean
        found.append(inference.deviation(mean)[:, 0, 0][:, MASK].numpy())
    # everybody's second run has other events than the first: what is learned is the response
    own = [np.corrcoef(f.ravel(), t.ravel())[0, 1] for f, t in zip(found, true, strict=True)]
    others = [
        np.corrcoef(f.ravel(), t.ravel())[0, 1]
        for f, t in zip(found, np.roll(true, 1, axis=0), strict=True)
    ]
    assert np.mean(own) > 0.8
    assert abs(np.mean(others)) < 0.45


def test_own_responses_are_on_average_as_large_as_those_of_nobody(tmp_path):
    """What runs say is measured from the best prediction, not from the larger response."""
    ratio = []
    for seed in range(3):
        gains = 1 + 0.4 * np.random.default_rng(seed).standard_normal((20, 1, 1))
        maps = 0.2 * gains * patterns()
        made = simulate(maps[:8], noise=1.0, seed=seed)
        response, _ = fit_response_of(made, tmp_path / str(seed), CONFIG)
        inference, new = response.inference(), simulate(maps[8:], noise=1.0, seed=seed + 50)
        expected = response.expectation(None)[..., MASK].flatten(2).flatten(0, 1).double()
        found = []
        for index in range(0, len(new.runs), 2):
            x, z = new.runs.regressors(index), new.runs.standardised(index)
            moments = torch.from_numpy(x.T @ x).double()
            residual = torch.from_numpy(x.T @ z).double() - moments @ expected
            mean = inference.posterior(inference.evidence(moments, residual)).mean
            found.append(inference.deviation(mean)[:, 0, 0][:, MASK].numpy())
        nobody = response.prediction(None)[:, 0, 0][:, MASK].numpy()
        truth = maps[8:].mean(0)
        ratio.append(((nobody + np.mean(found, 0)) * truth).sum() / (nobody * truth).sum())
    assert np.mean(ratio) > 0.92


def test_the_fit_repeats_and_holds_nobodys_values(tmp_path):
    gains = 1 + 0.4 * np.random.default_rng(0).standard_normal(8)
    made = simulate(gains[:, None, None] * patterns(), noise=0.5)
    one, other = (fit_response_of(made, tmp_path / n, CONFIG)[0].prior for n in "ab")
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        assert not any(size == len(gains) for size in value.shape), name


def test_too_few_participants_do_not_differ(tmp_path):
    made = simulate(np.linspace(0.5, 1.5, 3)[:, None, None] * patterns(), noise=0.3)
    assert not fit_response_of(made, tmp_path, CONFIG)[0].prior.present


# Fields and gradients


def test_fields_are_smooth_and_of_unit_variance():
    places = np.argwhere(np.ones((6, 6, 6))) * 16.0
    fields = smooth_fields(places, 60.0, 24)
    assert np.square(fields).sum(0).mean() == pytest.approx(1)
    covariance = fields.T @ fields
    near = covariance[0, np.abs(places - places[0]).sum(1) == 16]
    far = covariance[0, np.abs(places - places[0]).sum(1) >= 160]
    assert near.min() > 0.7 * covariance[0, 0]
    assert np.abs(far).max() < 0.2 * covariance[0, 0]
    power = np.square(fields).sum(1)
    assert (np.diff(power) < 1e-6).all()


def test_fields_at_many_places_are_those_of_their_landmarks():
    places = np.argwhere(np.ones((14, 14, 14))) * 8.0
    fields = smooth_fields(places, 60.0, 8)
    assert fields.shape == (8, len(places))
    neighbours = np.corrcoef(fields[:, :-1].ravel(), fields[:, 1:].ravel())[0, 1]
    assert neighbours > 0.9


def test_gradients_are_those_of_the_decoded_maps():
    """A map that grows along x by a known amount per mm."""
    model = make_model()
    space = model.latent_space
    slope = torch.arange(8.0)[:, None, None].expand(8, 8, 8) * space.mask
    data = SimpleNamespace(grid=Grid(SHAPE, affine_of(), ball()), scale=1.0)
    gradients = map_gradients(slope[None, None].clone(), model.autoencoder, space, data)
    inner = (slice(3, 5),) * 3
    # one unit per latent voxel of 8 mm, by central differences of blocks of two voxels
    np.testing.assert_allclose(gradients[0, 0, 0][inner], 1 / 8, rtol=1e-4)
    np.testing.assert_allclose(gradients[1:, 0, 0][(slice(None), *inner)], 0, atol=1e-6)
