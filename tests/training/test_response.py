"""The response model recovers simulated responses, and learns nothing from noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.latent_world import (
    FACTOR,
    MASK,
    NAMES,
    SMALL,
    fit_response_of,
    patterns,
    simulate,
)

from fmrisynth.config.diffusion import ResponseConfig
from fmrisynth.model.response import IndividualResponse
from fmrisynth.training.own_responses import own_responses
from fmrisynth.training.response import _features
from fmrisynth.training.response_statistics import collect_statistics

HAND, FOOT = NAMES.index("hand"), NAMES.index("foot")
CONFIG = ResponseConfig(kind="glm", rank=4, width=4, steps=100, individual_fields=0)
NETWORK = replace(CONFIG, kind="network")


def fit(made, tmp_path, config=CONFIG):
    """The response model, and the runs with their participants' own responses."""
    return fit_response_of(made, tmp_path, config)


def maps_of(response, mean=None):
    """Response to each trial type by the HRF, (V, P)."""
    with torch.no_grad():
        maps = response.maps_of(mean)[:, 0, MASK]
    return (response.coefficients[:, 0] @ maps).numpy()


def slope(found, true):
    """Slope and correlation of found on true maps."""
    found, true = found.ravel(), true.ravel()
    return found @ true / (true @ true), np.corrcoef(found, true)[0, 1]


# The group


def test_the_group_fit_recovers_known_maps(tmp_path):
    made = simulate(np.repeat(patterns()[None], 6, 0), noise=0.5)
    response, _ = fit(made, tmp_path)
    found = maps_of(response)
    ratio, correlation = slope(found[[HAND, FOOT]], patterns()[[HAND, FOOT]])
    assert ratio == pytest.approx(1, abs=0.05)
    assert correlation > 0.95
    absent = [v for v in range(len(NAMES)) if v not in (HAND, FOOT)]
    assert np.abs(found[absent]).max() < 1e-3
    assert (response.maps[..., ~MASK] == 0).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_alone_is_shrunk_away(tmp_path, seed):
    """Left-out participants choose the shrinkage: nothing holds for them, little is kept."""
    nothing = np.zeros((6, len(NAMES), int(MASK.sum())))
    made = simulate(nothing, seed=seed)
    response, _ = fit(made, tmp_path)
    statistics = collect_statistics(made.runs, made.data, 0, tmp_path)
    moments, products = statistics.total(range(6))
    fitted = np.linalg.lstsq(moments[:4, :4], products[:4], rcond=None)[0][0::2]
    kept = np.square(maps_of(response)).sum() / np.square(fitted).sum()
    assert kept < 0.1


def test_shares_are_near_one_for_strong_effects_and_lower_for_weak_ones(tmp_path):
    ratios = []
    for size in (1.0, 0.08):
        made = simulate(size * np.repeat(patterns()[None], 8, 0), noise=1.0)
        response, _ = fit(made, tmp_path)
        ratios.append(slope(maps_of(response), size * patterns())[0])
    assert ratios[0] == pytest.approx(1, abs=0.07)
    assert 0.1 < ratios[1] < 0.9


def test_without_a_response_model_participants_have_their_own_all_the_same(tmp_path):
    """The denoiser's regression needs them; its noise keeps the responses that it learns."""
    made = simulate(np.repeat(patterns()[None], 4, 0), noise=0.5)
    response, runs = fit(made, tmp_path, replace(CONFIG, kind="none"))
    assert not response.present
    assert not response.maps.any()
    whole = made.runs.noise(0)
    torch.testing.assert_close(runs.noise(0), whole)
    removed = replace(runs, removed=True).noise(0)
    assert removed[..., MASK].var() < 0.9 * whole[..., MASK].var()


def test_a_network_without_a_response_model_learns_responses_of_true_size(tmp_path):
    """The best prediction of weak effects is smaller than they are."""
    size, restored = {}, {}
    for kind in ("glm", "none"):
        made = simulate(0.08 * np.repeat(patterns()[None], 8, 0), noise=1.0)
        response, runs = fit(made, tmp_path / kind, replace(CONFIG, kind=kind))
        own = np.mean([o[0::2] for o in runs.responses.values()], axis=0)
        size[kind] = slope(own, 0.08 * patterns())[0]
        restored[kind] = float(response.restored[0])  # of the first component
    assert restored["glm"] > 1.1
    assert size["none"] / size["glm"] == pytest.approx(restored["glm"], rel=0.1)


def test_a_synthetic_response_that_is_more_truth_than_error_is_drawn_unbiased(tmp_path):
    """The best prediction is less than the truth; what is drawn is of its size."""
    sizes = {"prediction": [], "synthetic": []}
    for seed in range(4):
        made = simulate(0.14 * np.repeat(patterns()[None], 8, 0), noise=1.0, seed=seed)
        response, _ = fit(made, tmp_path / str(seed), replace(CONFIG, kind="glm"))
        for name, maps in (("prediction", response.maps), ("synthetic", response.synthetic_maps)):
            found = torch.einsum("vj,jcxyz->vcxyz", response.coefficients[:, 0], maps)
            sizes[name].append(slope(found[..., MASK].flatten(1).numpy(), 0.14 * patterns())[0])
    assert np.mean(sizes["prediction"]) < 0.92
    assert np.mean(sizes["synthetic"]) == pytest.approx(1, abs=0.08)


# Own responses


def test_own_responses_are_those_of_each_participant(tmp_path):
    sizes = np.linspace(0.4, 1.6, 7)
    made = simulate(sizes[:, None, None] * patterns(), noise=0.3, n_volumes=80)
    _, runs = fit(made, tmp_path)
    found = [slope(runs.responses[f"{s:02d}"][0::2], patterns())[0] for s in range(len(sizes))]
    assert np.corrcoef(found, sizes)[0, 1] > 0.98
    assert np.ptp(found) > 0.6 * np.ptp(sizes)


def test_own_responses_that_are_noise_are_shrunk_to_the_prediction(tmp_path):
    """What the halves of the data do not agree on is no individual difference."""
    made = simulate(np.repeat(patterns()[None], 6, 0), noise=3.0)
    response, _ = fit(made, tmp_path)
    statistics = collect_statistics(made.runs, made.data, 0, tmp_path)
    own = own_responses(response, statistics, made.data, tmp_path)
    prediction = (response.coefficients.flatten(0, 1) @ response.maps[:, 0, MASK]).numpy()
    departures = [np.square(o - prediction).mean() for o in own.values()]
    fits = [
        np.linalg.lstsq(
            statistics.moments[s].sum(0)[:4, :4], statistics.products[s].sum(0)[:4], rcond=None
        )[0]
        for s in range(6)
    ]
    unshrunk = [np.square(f - prediction[:4]).mean() / 2 for f in fits]
    assert np.mean(departures) < 0.05 * np.mean(unshrunk)


def test_what_drawn_responses_leave_is_noise_and_nothing_of_a_response(tmp_path):
    """Neither the part of a response that shrinkage leaves, nor less noise along the regressors."""
    sizes = np.linspace(0.2, 1.8, 6)
    powers = {"noise": [], "shrunk": [], "drawn": []}
    for seed in range(6):
        worlds = [
            simulate(scale[:, None, None] * patterns(), noise=2.0, seed=seed)
            for scale in (0 * sizes, sizes)
        ]
        _, runs = fit(worlds[1], tmp_path / str(seed))
        for index in range(len(runs)):
            x = runs.regressors(index)
            axes = np.linalg.qr(x[:, np.abs(x).max(0) > 0])[0]
            for name, of in (
                ("noise", worlds[0].runs),
                ("shrunk", runs),
                ("drawn", runs.without_responses()),
            ):
                values = of.noise(index)[..., MASK].flatten(1).numpy()
                powers[name].append(np.square(axes.T @ values).mean())
    noise, shrunk, drawn = (np.mean(powers[name]) for name in ("noise", "shrunk", "drawn"))
    assert drawn == pytest.approx(noise, rel=0.05)
    assert shrunk > 1.1 * noise


def test_a_run_without_its_response_is_noise(tmp_path):
    """`LatentRuns.noise` is white where the response was strong, in units of the level."""
    made = simulate(
        np.repeat(3 * patterns()[None], 4, 0), noise=1.0, levels=np.array([1.0, 2.0, 1.0, 3.0])
    )
    _, runs = fit(made, tmp_path)
    for index in range(len(runs)):
        noise = runs.noise(index)[..., MASK]
        assert float(noise.std()) == pytest.approx(1, abs=0.1)
        again = runs.noise(index, 5, 10)[..., MASK]
        torch.testing.assert_close(again, noise[5:15])
        back = (noise[5:15] + runs.response(index, 5, 10)[..., MASK]) * runs.levels[index][MASK]
        expected = torch.from_numpy(runs.standardised(index))[5:15, None]
        torch.testing.assert_close(back, expected.view(back.shape), atol=1e-4, rtol=1e-4)


# Individual differences that anatomy foretells


def anatomical_world(n, *, seed=0, shuffled=False):
    """Participants whose responses scale with a feature of their mean image.

    At each latent voxel a participant's response is the group's times 1 + 0.5 f, with f the
    deviation of the first voxel of the block in the mean image, smooth over the brain.
    """
    rng = np.random.default_rng(seed)
    side = rng.standard_normal((n, 2))  # strength in the left and in the right of the brain
    ramp = np.linspace(-1, 1, SMALL[0])[:, None, None] * np.ones(SMALL)
    feature = side[:, 0, None, None, None] * (ramp < 0) + side[:, 1, None, None, None] * (ramp > 0)
    maps = patterns() * (1 + 0.5 * feature[:, None, MASK.numpy()])
    means = 1 + 0.02 * rng.standard_normal((n, *(FACTOR * s for s in SMALL)))
    means[:, ::FACTOR, ::FACTOR, ::FACTOR] += 0.1 * feature
    if shuffled:
        means = np.roll(means, n // 2, axis=0)
    return maps, means


def test_anatomy_predicts_the_responses_of_participants_left_out(tmp_path):
    maps, means = anatomical_world(32)
    learned = simulate(maps[:24], means[:24], noise=0.5)
    response, _ = fit(learned, tmp_path, NETWORK)
    assert float(response.individual.amplitude) > 0.5
    group = maps_of(response)
    predicted, true = [], []
    for s in range(24, 32):
        own = maps_of(response, torch.from_numpy(means[s]).float())
        predicted.append((own - group)[[HAND, FOOT]].ravel())
        true.append((maps[s] - maps[:24].mean(0))[[HAND, FOOT]].ravel())
    assert np.corrcoef(np.concatenate(predicted), np.concatenate(true))[0, 1] > 0.5


def test_nothing_is_learned_from_the_anatomy_of_others(tmp_path):
    """With mean images exchanged between participants the amplitude is about zero."""
    maps, means = anatomical_world(24, shuffled=True)
    learned = simulate(maps, means, noise=0.5)
    response, _ = fit(learned, tmp_path, NETWORK)
    own = maps_of(response, torch.from_numpy(means[0]).float())
    difference = maps[12] - maps.mean(0)
    assert np.square(own - maps_of(response)).sum() < 0.05 * np.square(difference).sum()


def test_anatomy_is_a_deviation_from_the_participants_mean(tmp_path):
    """Which is computed participant by participant: all of their images may not fit into memory."""
    grid = tuple(FACTOR * n for n in SMALL)
    images = np.random.default_rng(0).uniform(0.5, 1.5, (9, *grid)).astype(np.float32)
    made = simulate(np.repeat(patterns()[None], 9, 0), means=images)
    network = IndividualResponse(1, MASK, FACTOR, 4)
    labels = sorted(set(made.data.participants))
    features = _features(network, labels, made.data, tmp_path)
    folded = network.fold(torch.from_numpy(images))
    torch.testing.assert_close(network.anatomy_mean, folded.mean(0))
    torch.testing.assert_close(network.anatomy_sd, folded.std(0)[:, MASK].mean())
    expected = network.standardise(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(list(features), expected)


def test_too_few_participants_have_the_responses_of_the_group(tmp_path):
    maps, means = anatomical_world(3)
    response, _ = fit(simulate(maps, means, noise=0.5), tmp_path, NETWORK)
    assert float(response.individual.amplitude) == 0
    assert np.array_equal(maps_of(response, torch.from_numpy(means[0]).float()), maps_of(response))


def test_fits_repeat(tmp_path):
    maps, means = anatomical_world(6)
    made = simulate(maps, means, noise=0.5)
    config = replace(NETWORK, steps=20, individual_fields=2)
    one, other = (fit(made, tmp_path / name, config)[0].state_dict() for name in "ab")
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_participants_in_parts_teach_what_all_at_once_do(tmp_path, monkeypatch):
    maps, means = anatomical_world(7)
    made = simulate(maps, means, noise=0.5)
    config = replace(NETWORK, steps=10)
    whole, _ = fit(made, tmp_path / "whole", config)
    monkeypatch.setattr("fmrisynth.training.response.AT_ONCE", 2)
    parts, _ = fit(made, tmp_path / "parts", config)
    mean = torch.from_numpy(means[0]).float()
    found, expected = maps_of(parts, mean), maps_of(whole, mean)
    assert np.abs(expected - maps_of(whole)).max() > 0.01  # something is learned
    np.testing.assert_allclose(found, expected, atol=1e-4)
