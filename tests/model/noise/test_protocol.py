"""Every noise model does what the protocol promises."""

from dataclasses import replace

import pytest
import torch
from support.tiny_model import DENOISER, HIGH_PASS, make_model, smooth_fields

from fmrisynth.config.model import ModelConfig, PreprocessConfig
from fmrisynth.model.noise.factory import make_noise
from fmrisynth.preprocess.carrier import removed_basis

FORMS = {
    "white": {"noise": "white"},
    "stationary": {"noise_modes": 0},
    "modal": {"noise_modes": 4},
}


N_RUN, T_R = 60, 2.0


@pytest.fixture(scope="module", params=FORMS)
def noise(request):
    """Each model, fitted to runs that have lost their drift."""
    noise = make_model(replace(DENOISER, **FORMS[request.param])).noise
    basis = removed_basis(N_RUN, T_R, HIGH_PASS)
    projector = torch.from_numpy(basis @ basis.T).float()
    fields = [
        field - torch.tensordot(projector, field, dims=1)
        for field in smooth_fields(noise.mask, 6, N_RUN)
    ]
    deviation = torch.cat(fields).square().mean(0).sqrt().clamp(min=1e-6)
    return noise.fit([field / deviation * noise.mask for field in fields], basis)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drift(noise, n_frames=N_RUN, t_r=T_R):
    """Largest coefficient of mean and drift in a run's noise."""
    basis = torch.from_numpy(removed_basis(n_frames, t_r, HIGH_PASS)).float()
    drawn = noise.sample_run(n_frames, t_r, generator())
    return float((basis.T @ drawn[..., noise.mask].flatten(1)).abs().max())


def test_draws_depend_on_their_seeds_alone(noise):
    first = noise.sample_run(20, 2.0, generator(), 7)
    torch.manual_seed(99)
    assert torch.equal(noise.sample_run(20, 2.0, generator(), 7), first)
    assert not torch.equal(noise.sample_run(20, 2.0, generator(1), 7), first)
    window = noise.sample_window(8, generator(), 7)
    assert torch.equal(noise.sample_window(8, generator(), 7), window)


def test_draws_have_unit_variance_in_the_brain_and_are_zero_outside(noise):
    draws = {
        "run": torch.stack([noise.sample_run(N_RUN, T_R, generator(seed)) for seed in range(8)]),
        "window": torch.stack([noise.sample_window(8, generator(seed)) for seed in range(40)]),
    }
    for name, drawn in draws.items():
        assert drawn.dtype == torch.float32
        assert not drawn[..., ~noise.mask].any()
        assert float(drawn[..., noise.mask].square().mean()) == pytest.approx(1, abs=0.08), name


def test_noise_fitted_to_residuals_has_no_drift_and_white_noise_is_not_filtered():
    limits = {"white": (1.0, 99.0), "stationary": (0.0, 1e-3), "modal": (0.0, 1e-3)}
    for form, (least, most) in limits.items():
        assert least <= drift(make_model(replace(DENOISER, **FORMS[form])).noise) <= most, form


@pytest.mark.parametrize("form", ["stationary", "modal"])
def test_noise_of_whole_volumes_keeps_its_drift(form):
    fitted = make_model(replace(DENOISER, **FORMS[form])).noise
    config = ModelConfig(
        preprocess=PreprocessConfig(high_pass=HIGH_PASS, normalisation="volume"),
        autoencoder=make_model().info.config.autoencoder,
        denoiser=replace(DENOISER, **FORMS[form]),
    )
    whole = make_noise(config, fitted.mask)
    whole.load_state_dict(fitted.state_dict())
    assert drift(fitted) < 1e-3
    assert drift(whole) > 1


def test_models_without_individual_differences_read_no_fields():
    def forbidden():
        raise AssertionError("a field was read")
        yield

    for form in ("white", "stationary"):
        noise = make_model(replace(DENOISER, **FORMS[form])).noise
        assert noise.fit_individual_differences(forbidden(), ["01"]) is noise
