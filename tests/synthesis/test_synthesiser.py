"""Synthetic runs of a model made by hand: repeatable, without seams, following their events."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.tiny_model import (
    DENOISER,
    HIGH_PASS,
    LATENT,
    N_FRAMES,
    NO_RESPONSE,
    PEAK,
    SHAPE,
    affine_of,
    ball,
    blocks,
    latents_of,
    make_bold,
    make_model,
    make_run,
    regions,
    run_condition,
    upsampled,
    with_backbone,
)

from fmrisynth.bids.images import Bold
from fmrisynth.config.model import SamplingConfig
from fmrisynth.errors import ModelError
from fmrisynth.preprocess.carrier import drift_basis, removed_basis, split
from fmrisynth.preprocess.design import design_of
from fmrisynth.synthesis.sampler import SAMPLERS
from fmrisynth.synthesis.synthesiser import Synthesiser, participant_seed, run_seed

EVENTS = blocks("hand", "foot", "hand")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def wild():
    """A network that does something, everywhere and to everything."""
    return make_model(wildness=0.1)


def synthesise(
    model,
    events=EVENTS,
    *,
    seed=1,
    n_volumes=40,
    bold=None,
    sampling=None,
    noise_sd=None,
    **run,
):
    bold = make_bold(n_volumes) if bold is None else bold
    run = make_run(n_volumes=bold.data.shape[3], t_r=bold.t_r, **run)
    maker = Synthesiser(model, sampling or model.info.config.sampling)
    carrier, _ = split(bold, HIGH_PASS)
    noise_sd = carrier.noise_sd if noise_sd is None else noise_sd
    return maker.synthesise(run, carrier, noise_sd, events, seed, participant=0), carrier


def percent(made, carrier):
    """Residual of a synthetic run, in %."""
    inside = np.where(carrier.mask, carrier.mean, 1)[..., None]
    return np.where(carrier.mask[..., None], made / inside * 100 - 100, 0)


# Repeatability


def test_the_same_seed_makes_the_same_bytes(wild):
    one, other = (synthesise(wild, n_volumes=20)[0] for _ in range(2))
    assert one.tobytes() == other.tobytes()


def test_another_seed_makes_another_run(wild):
    one, carrier = synthesise(wild, n_volumes=20)
    other, _ = synthesise(wild, n_volumes=20, seed=2)
    a, b = (percent(x, carrier)[carrier.mask].ravel() for x in (one, other))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.5  # they share what is evoked


def test_neither_global_generator_nor_order_matters(wild):
    torch.manual_seed(1)
    first = synthesise(wild, n_volumes=12)[0]
    torch.manual_seed(2)
    synthesise(wild, n_volumes=12, seed=9)
    assert np.array_equal(first, synthesise(wild, n_volumes=12)[0])


def test_seeds_of_runs_are_their_own():
    keys = [(seed, f"sub-{p}_task-{t}", s) for seed in (0, 1) for p in range(20)
            for t in ("a", "b") for s in (1, 2)]  # fmt: skip
    seeds = {run_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert run_seed(0, "sub-01_task-a", 1) == run_seed(0, "sub-01_task-a", 1)


# The run's own grid, length and carrier


def test_a_run_keeps_its_carrier(model):
    made, carrier = synthesise(model)
    bold = make_bold()
    assert made.shape == bold.data.shape
    assert made.dtype == np.float32
    assert (made[~carrier.mask] == 0).all()
    np.testing.assert_allclose(made.mean(3), carrier.mean, rtol=1e-4)
    residual = percent(made, carrier)[carrier.mask].T
    basis = drift_basis(40, 2.0, HIGH_PASS)
    own = split(bold, HIGH_PASS)[0].drift[:, carrier.mask]
    np.testing.assert_allclose(basis.T @ residual, own, atol=0.02)


def test_the_noise_level_is_the_carriers(model):
    """What the decoder gives and what is added make up the real run's standard deviation."""
    quiet = blocks("zero")  # of a task that does not respond in this run's voxels of interest
    made, carrier = synthesise(model, quiet, n_volumes=60, entities={"sub": "01", "task": "wm"})
    basis = drift_basis(60, 2.0, HIGH_PASS)
    residual = percent(made, carrier)[carrier.mask].T
    residual = residual - basis @ (basis.T @ residual)
    elsewhere = ~upsampled(regions()["zero"])[carrier.mask]
    ratio = residual.std(0)[elsewhere] / carrier.noise_sd[carrier.mask][elsewhere]
    assert float(np.median(ratio)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_noise_is_as_loud_as_it_is_to_be(model, factor):
    """Everywhere, whatever the carrier's run had; the response does not change with it."""
    quiet = SamplingConfig(sampler="euler", steps=6, stride=4, guidance=0.0)
    carrier = split(make_bold(60), HIGH_PASS)[0]
    sds, responses = [], []
    for sd in (carrier.noise_sd, factor * carrier.noise_sd):
        noise = percent(*synthesise(model, n_volumes=60, sampling=quiet, noise_sd=sd))
        made = percent(*synthesise(model, n_volumes=60, noise_sd=sd))
        sds.append(noise[carrier.mask].std(1))
        responses.append((made - noise)[carrier.mask])
    assert np.median(sds[1] / sds[0]) == pytest.approx(factor, rel=0.05)
    assert np.percentile(sds[1] / sds[0], [5, 95]) == pytest.approx([factor] * 2, rel=0.3)
    np.testing.assert_allclose(responses[0], responses[1], atol=0.02)


def test_latents_are_multiplied_by_level_and_intensity(model):
    """Noise alone; the response is beside it."""
    condition, level = run_condition(EVENTS), torch.rand(LATENT) + 0.5
    sampling = SamplingConfig(steps=4, stride=4)

    def latents(guidance, level=None, intensity=None):
        generator = torch.Generator().manual_seed(0)
        chosen = replace(sampling, guidance=guidance)
        return latents_of(model, condition, chosen, generator, level=level, intensity=intensity)

    intensity = torch.rand(condition.n_volumes) + 0.5
    plain, response = latents(0.0), latents(1.0) - latents(0.0)
    loud = plain * level * intensity[:, None, None, None, None]
    torch.testing.assert_close(latents(0.0, level, intensity), loud)
    torch.testing.assert_close(latents(1.0, level, intensity), loud + response)


def test_without_the_backbone_runs_are_statistics_alone(wild):
    """As of a network that predicts nothing; the noise has the covariance of the noise model."""
    statistics = SamplingConfig(sampler="euler", steps=6, stride=4, backbone=False)
    alone = synthesise(wild, n_volumes=20, sampling=statistics)[0]
    np.testing.assert_allclose(
        alone, synthesise(make_model(), n_volumes=20)[0], rtol=1e-4, atol=1e-2
    )
    assert not np.allclose(alone, synthesise(wild, n_volumes=20)[0], rtol=1e-3)


def test_the_network_sees_noise_without_bursts_and_runs_have_what_belongs_to_them(monkeypatch):
    """As it was trained: windows were divided by intensities, which left them a quarter."""
    seen, made = {}, {}
    for left in (1.0, 0.25):
        model = make_model()  # predicts nothing
        model.noise.steadiness.fill_(left)
        predict, powers = model.denoiser.predict, seen.setdefault(left, [])

        def watched(x, *given, predict=predict, powers=powers):
            powers.append(float(x.square().mean()))
            return predict(x, *given)

        monkeypatch.setattr(model.denoiser, "predict", watched)
        made[left] = synthesise(model, n_volumes=20)[0]
    assert len(seen[1.0]) > 1
    np.testing.assert_allclose(seen[0.25], np.multiply(seen[1.0], 0.25), rtol=1e-3)
    np.testing.assert_allclose(made[0.25], made[1.0], rtol=1e-4, atol=1e-2)


def test_the_noise_keeps_its_precision_where_the_network_has_less():
    """Bursts are taken out and put back in float32: what they leave differs from mode to mode."""
    model = make_model()  # predicts nothing
    model.noise.steadiness.copy_(torch.linspace(0.2, 1.5, len(model.noise.steadiness)))
    sampling = SamplingConfig(sampler="euler", steps=2, stride=4)
    with torch.autocast("cpu", torch.bfloat16):
        seen, alone = (
            latents_of(
                model,
                run_condition(EVENTS),
                replace(sampling, backbone=backbone),
                torch.Generator().manual_seed(0),
            )
            for backbone in (True, False)
        )
    torch.testing.assert_close(seen, alone, rtol=1e-4, atol=1e-4)


def test_a_gate_of_zero_is_no_network():
    shut = make_model(wildness=0.1)
    shut.denoiser.gate.zero_()
    statistics = replace(shut.info.config.sampling, backbone=False)
    assert np.array_equal(
        synthesise(shut, n_volumes=20)[0], synthesise(shut, n_volumes=20, sampling=statistics)[0]
    )


def test_the_response_is_that_of_the_runs_anatomy():
    """A network of individual differences that doubles the maps doubles what a run responds."""
    twice = make_model()
    network = twice.response.individual
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.head.bias[0] = 1.0  # gain of the only channel
    network.amplitude.fill_(1.0)
    sampling = SamplingConfig(steps=6, stride=4)
    expected = percent(*synthesise(make_model(), sampling=replace(sampling, guidance=2.0)))
    np.testing.assert_allclose(percent(*synthesise(twice, sampling=sampling)), expected, atol=1e-2)


@pytest.mark.parametrize("n_volumes", [3, N_FRAMES - 1, N_FRAMES, N_FRAMES + 1, 29])
def test_any_length(model, n_volumes):
    made, carrier = synthesise(model, blocks("hand", first=0.0), n_volumes=n_volumes)
    assert made.shape == (*SHAPE, n_volumes)
    assert np.isfinite(made).all()
    assert made[carrier.mask].std(axis=1).min() > 0


@pytest.mark.parametrize(
    ("size", "rotation", "flip"), [(3.0, 0.0, False), (4.0, 0.3, False), (5.0, 0.0, True)]
)
def test_any_grid_of_the_run(model, size, rotation, flip):
    """Coarser, finer, oblique and left-handed runs get their evoked maps in the right place."""
    shape = tuple(int(n) for n in np.round(16 * 4.0 / size * np.array([1, 1.1, 1])).astype(int))
    affine = affine_of(shape, size)
    turn = np.eye(4)
    turn[:2, :2] = [
        [np.cos(rotation), -np.sin(rotation)],
        [np.sin(rotation), np.cos(rotation)],
    ]
    affine = turn @ affine
    if flip:
        affine = np.diag([-1.0, 1, 1, 1]) @ affine
    rng = np.random.default_rng(0)
    mask = ball(shape)
    data = 1000 * (1 + 0.01 * rng.standard_normal((*shape, 40))) * mask[..., None]
    bold = Bold(data.astype(np.float32), affine, mask, 2.0)
    made = [
        percent(*synthesise(model, events, bold=bold, shape=shape, affine=affine))
        for events in (blocks("hand", "hand"), blocks("foot", "foot"))
    ]
    strength = np.square(made[0] - made[1]).mean(3)
    places = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    expected = [
        np.argwhere(upsampled(regions()[name])) @ affine_of()[:3, :3].T + affine_of()[:3, 3]
        for name in ("hand", "foot")
    ]
    distance = np.min([np.linalg.norm(places - e.mean(0), axis=1) for e in expected], axis=0)
    values = strength[mask]
    centre = (places * values[:, None]).sum(0) / values.sum()
    np.testing.assert_allclose(centre, np.mean([e.mean(0) for e in expected], axis=0), atol=2)
    assert values[distance > 20].sum() < 0.01 * values.sum()


def test_another_tr(model):
    made, _ = synthesise(model, bold=make_bold(50, t_r=1.3))
    assert made.shape == (*SHAPE, 50)


# Drift and seeds


@torch.no_grad()
@pytest.mark.parametrize(("noise", "free"), [("coloured", True), ("white", False)])
def test_latents_of_a_run_have_no_drift_as_those_learned_from(noise, free):
    model = make_model(replace(DENOISER, noise=noise, noise_modes=4))
    condition = run_condition(EVENTS, n_volumes=80)
    generator = torch.Generator().manual_seed(0)
    latents = latents_of(model, condition, SamplingConfig(steps=4, stride=4), generator)
    basis = torch.from_numpy(removed_basis(80, condition.t_r, HIGH_PASS)).float()
    drift = basis.T @ latents[..., model.latent_space.mask].flatten(1)
    assert (float(drift.abs().mean()) < 1e-3) == free


def test_every_participant_and_sample_has_seeds_of_its_own():
    seeds = {
        participant_seed(seed, label, sample)
        for seed in (0, 1)
        for label in ("01", "02")
        for sample in (1, 2)
    }
    assert len(seeds) == 8


# Events


@pytest.mark.parametrize("seed", [1, 2])
def test_other_events_change_the_maps_where_they_should(seed):
    """Issue A: the same seed with two conditions differs in the evoked maps."""
    # random weights of the head by frames would be responses everywhere
    wild, made = make_model(with_backbone(frame_components=0), wildness=0.1), {}
    for name in ("hand", "foot"):
        data, carrier = synthesise(wild, blocks(name, name, name), seed=seed, n_volumes=48)
        made[name] = percent(data, carrier)
    regressor = design_of(blocks("x", "x", "x"), ["x"], 48, 2.0, high_pass=HIGH_PASS).evoked[
        :, 0, 0
    ]
    difference = (made["hand"] - made["foot"]) @ regressor / (regressor @ regressor)
    places = {name: upsampled(region) & ball() for name, region in regions().items()}
    assert difference[places["hand"]].mean() == pytest.approx(PEAK, rel=0.15)
    assert difference[places["foot"]].mean() == pytest.approx(-PEAK, rel=0.15)
    elsewhere = ball() & ~places["hand"] & ~places["foot"]
    assert np.abs(difference[elsewhere]).mean() < 0.1 * PEAK


def test_the_response_follows_its_events_in_time(model):
    early = percent(*synthesise(model, blocks("hand", first=4.0), n_volumes=40))
    late = percent(*synthesise(model, blocks("hand", first=44.0), n_volumes=40))
    course = (early - late)[upsampled(regions()["hand"]) & ball()].mean(0)
    assert 4 <= int(course.argmax()) <= 9  # 4 s onset, response about 4 to 14 s later
    assert 24 <= int(course.argmin()) <= 29


def test_no_change_of_events_no_change_of_output(model):
    shuffled = EVENTS.iloc[::-1].reset_index(drop=True)
    assert np.allclose(synthesise(model)[0], synthesise(model, shuffled)[0], atol=1e-2)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0])
def test_guidance_scales_the_response(model, guidance):
    sampling = SamplingConfig(steps=15, stride=4)
    made = [
        percent(*synthesise(model, sampling=replace(sampling, guidance=g)))
        for g in (guidance, 1.0, 0.0)
    ]
    hand = upsampled(regions()["hand"]) & ball()
    response = (made[1] - made[2])[hand].mean(0)
    scaled = (made[0] - made[2])[hand].mean(0)
    np.testing.assert_allclose(scaled, guidance * response, atol=0.02)
    regressors = design_of(EVENTS, ["hand"], 40, 2.0, high_pass=HIGH_PASS).evoked[:, 0, 0]
    slope = response @ regressors / (regressors @ regressors)
    assert slope == pytest.approx(PEAK, rel=0.05)


def test_what_the_autoencoder_takes_off_the_response_is_put_back():
    weak = make_model()
    weak.decoder_noise.evoked_gain.fill_(0.5)
    sampling = SamplingConfig(steps=6, stride=4)
    made = percent(*synthesise(weak, sampling=sampling))
    double = percent(*synthesise(make_model(), sampling=replace(sampling, guidance=2.0)))
    np.testing.assert_allclose(made, double, atol=1e-2)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_gives_the_response(model, name):
    steps = {"ddpm": 60, "ddim": 60}.get(name, 20)
    sampling = SamplingConfig(sampler=name, steps=steps, stride=4)
    made = [
        percent(*synthesise(model, blocks(n, n), sampling=sampling, n_volumes=24))
        for n in ("hand", "foot")
    ]
    regressor = design_of(blocks("x", "x"), ["x"], 24, 2.0, high_pass=HIGH_PASS).evoked[:, 0, 0]
    difference = (made[0] - made[1]) @ regressor / (regressor @ regressor)
    hand = upsampled(regions()["hand"]) & ball()
    assert difference[hand].mean() == pytest.approx(PEAK, rel=0.1)


def test_the_backbone_alone_responds_to_events():
    """Without a response model other events change a run, as far as guidance lets them in."""
    model = make_model(DENOISER, NO_RESPONSE, wildness=0.2)
    change = {}
    for guidance in (0.0, 1.0, 2.0):
        sampling = replace(model.info.config.sampling, guidance=guidance)
        one, other = (
            percent(*synthesise(model, blocks(name, name), n_volumes=24, sampling=sampling))
            for name in ("hand", "foot")
        )
        change[guidance] = float(np.abs(one - other)[ball()].mean())
    assert change[0.0] == 0
    assert change[1.0] > 0.01  # %
    assert change[2.0] > 1.3 * change[1.0]


def test_unknown_trial_types_are_refused(model):
    with pytest.raises(ModelError, match=r"'tongue'.*foot, hand"):
        synthesise(model, blocks("tongue"))
    with pytest.raises(ModelError, match=r"task 'rest'; it has motor, wm"):
        synthesise(model, entities={"sub": "01", "task": "rest"})
