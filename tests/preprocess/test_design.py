"""Tests of the design: regressors are nilearn's, and shares of the TR add up."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nilearn.glm.first_level import make_first_level_design_matrix

from fmrisynth.preprocess.carrier import drift_basis, remove_drift
from fmrisynth.preprocess.design import design_of

HIGH_PASS = 1 / 128


def table(*rows):
    return pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])


def test_the_share_of_a_tr_is_the_time_that_the_event_is_on():
    events = table((1.0, 2.0, "a"), (6.5, 0.5, "a"), (8.0, 4.0, "b"), (9.0, 4.0, "b"))
    design = design_of(events, ["a", "b", "never"], 8, 2.0, high_pass=HIGH_PASS)
    np.testing.assert_allclose(design.share[:, 0], [0.5, 0.5, 0, 0.25, 0, 0, 0, 0])
    np.testing.assert_allclose(design.share[:, 1], [0, 0, 0, 0, 1, 1, 0.5, 0])
    assert (design.share[:, 2] == 0).all()
    assert (design.hrf[:, 2] == 0).all()
    assert (design.evoked[:, 2] == 0).all()


@pytest.mark.parametrize(("t_r", "start_time"), [(2.0, 0.0), (0.72, 0.0), (2.0, 1.0), (3.1, 1.55)])
def test_regressors_are_those_of_nilearn(t_r, start_time):
    events = table((0.0, 6.0, "a"), (12.3, 2.5, "b"), (21.0, 9.0, "a"), (30.0, 1.0, "b"))
    n_volumes = round(60 / t_r)
    times = start_time + np.arange(n_volumes) * t_r
    theirs = make_first_level_design_matrix(
        times, events, hrf_model="glover + derivative", drift_model=None
    )
    design = design_of(
        events, ["a", "b"], n_volumes, t_r, start_time=start_time, high_pass=HIGH_PASS
    )
    for column, name in enumerate(["a", "b"]):
        for part, suffix in enumerate(["", "_derivative"]):
            np.testing.assert_allclose(
                design.hrf[:, column, part], theirs[name + suffix], atol=1e-5
            )


def test_evoked_regressors_have_no_mean_and_no_drift():
    events = table(*[(t, 15.0, "a") for t in np.arange(0, 280, 60.0)], (100.0, 5.0, "b"))
    design = design_of(events, ["a", "b"], 150, 2.0, high_pass=HIGH_PASS)
    flat = design.evoked.reshape(150, -1)
    assert np.abs(flat.mean(0)).max() < 1e-6
    basis = drift_basis(150, 2.0, HIGH_PASS)
    assert np.abs(basis.T @ flat).max() < 1e-5
    np.testing.assert_allclose(
        design.evoked, remove_drift(design.hrf, basis), atol=1e-6
    )  # nothing else was taken


def test_an_event_without_duration_has_a_response():
    brief = design_of(table((4.0, 0.0, "a")), ["a"], 20, 2.0, high_pass=HIGH_PASS)
    one_second = design_of(table((4.0, 1.0, "a")), ["a"], 20, 2.0, high_pass=HIGH_PASS)
    np.testing.assert_allclose(brief.hrf, one_second.hrf)
    assert brief.hrf[..., 0].max() > 0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8))
def test_a_later_onset_moves_the_response_by_as_many_frames(shift):
    early = design_of(table((4.0, 6.0, "a")), ["a"], 40, 2.0, high_pass=HIGH_PASS)
    late = design_of(table((4.0 + 2 * shift, 6.0, "a")), ["a"], 40, 2.0, high_pass=HIGH_PASS)
    np.testing.assert_allclose(late.hrf[shift:], early.hrf[:-shift], atol=1e-3)
