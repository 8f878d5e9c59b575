"""The first level equals nilearn's and finds known effects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import run_glm

from fmrisynth.evaluation.runs.glm import GlmSettings, design_matrix, fit_run, percent_signal_change


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def _events(*rows):
    return pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])


def _autoregressive(rng, n_voxels, n_volumes, coefficient):
    noise = rng.normal(size=(n_voxels, n_volumes))
    for t in range(1, n_volumes):
        noise[:, t] += coefficient * noise[:, t - 1]
    return noise


def test_glm_equals_nilearn(rng):
    settings = GlmSettings()
    data = 100 + _autoregressive(rng, 200, 60, 0.4)
    events = _events((5, 10, "a"), (30, 10, "b"), (60, 10, "a"), (90, 10, "b"))
    design = design_matrix(events, 60, 2.0, 0.0, settings)
    model = fit_run(data, design, settings)
    labels, results = run_glm(
        percent_signal_change(data).T.astype(float), design.to_numpy(), "ar1", settings.bins
    )
    for label, result in results.items():
        np.testing.assert_allclose(
            model.effects[:, labels == label], result.theta[:2], rtol=1e-3, atol=1e-4
        )


def test_known_effects_are_found_in_percent(rng):
    settings = GlmSettings()
    events = _events((10, 15, "a"), (50, 15, "b"), (90, 15, "a"), (130, 15, "b"))
    design = design_matrix(events, 90, 2.0, 0.0, settings)
    truth = np.array([[2.0], [-1.0]])
    response = (design.to_numpy()[:, :2] @ truth).T
    data = 850.0 * (1 + (response + 0.1 * rng.normal(size=(40, 90))) / 100)
    model = fit_run(data, design, settings)
    np.testing.assert_allclose(model.effects.mean(axis=1), truth[:, 0], atol=0.1)


@pytest.mark.parametrize("name", ["constant", "drift_1", "a b", "1", "$x$", "trial_type_0001"])
def test_any_name_may_be_a_trial_type(name):
    events = _events((5, 10, name), (40, 10, "other"))
    design = design_matrix(events, 40, 2.0, 0.0, GlmSettings())
    assert list(design.columns[:2]) == sorted([name, "other"])
    assert design.attrs["n_trial_types"] == 2
    assert np.ptp(design.to_numpy()[:, :2], axis=0).min() > 0.1


def test_trial_types_without_a_response_in_the_run_are_left_out():
    events = _events((5, 10, "a"), (500, 10, "late"))
    design = design_matrix(events, 40, 2.0, 0.0, GlmSettings())
    assert design.attrs["n_trial_types"] == 1
    nothing = design_matrix(_events((500, 10, "late")), 40, 2.0, 0.0, GlmSettings())
    assert fit_run(np.ones((3, 40)), nothing, GlmSettings()).trial_types == ()


def test_dependent_trial_types_do_not_disturb_the_others(rng):
    """Every event is there twice: as its condition, and as "trial"."""
    once = _events((10, 15, "a"), (50, 15, "b"), (90, 15, "a"), (130, 15, "b"), (170, 10, "c"))
    twice = pd.concat([once, once.assign(trial_type="trial")])
    settings = GlmSettings()
    data = 850 + rng.normal(size=(20, 110))
    alone = fit_run(data, design_matrix(once, 110, 2.0, 0.0, settings), settings)
    both = fit_run(data, design_matrix(twice, 110, 2.0, 0.0, settings), settings)
    assert both.trial_types == ("a", "b", "c")
    assert both.dependent == ("trial",)
    assert alone.dependent == ()
    np.testing.assert_allclose(both.effects, alone.effects)


def test_two_names_of_the_same_events_are_one(rng):
    once = _events((10, 15, "a"), (50, 15, "b"))
    settings = GlmSettings()
    events = pd.concat([once, once.assign(trial_type=["copy of a", "b"])])
    model = fit_run(
        850 + rng.normal(size=(20, 60)), design_matrix(events, 60, 2.0, 0.0, settings), settings
    )
    assert len(model.trial_types) == 2
    assert len(model.dependent) == 1


def test_one_trial_type_per_trial_is_no_dependence():
    """As for estimates of single trials (beta series)."""
    events = _events(*[(10 + 12 * k, 2, f"trial{k:02d}") for k in range(12)])
    design = design_matrix(events, 90, 2.0, 0.0, GlmSettings())
    assert design.attrs["n_trial_types"] == 12


def test_events_of_trial_types_that_are_not_modelled_are_baseline():
    settings = GlmSettings(trial_types=(("motor", "a"), ("wm", "b")))
    events = _events((10, 15, "a"), (50, 15, "b"))
    assert list(settings.modelled(events, "motor")["trial_type"]) == ["a"]
    assert list(settings.modelled(events, "wm")["trial_type"]) == ["b"]
    assert len(GlmSettings().modelled(events, "motor")) == 2
