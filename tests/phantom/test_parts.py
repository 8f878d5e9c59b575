"""The parts of the phantom, each by a property that must hold."""

import numpy as np
import pandas as pd
import pytest

from fmrisynth.errors import UsageError
from fmrisynth.phantom import PhantomConfig
from fmrisynth.phantom.fields import Grid, SplineLattice, random_fields, weighted_sum
from fmrisynth.phantom.noise import draw_connectivity, population_networks
from fmrisynth.phantom.responses import (
    RELATIVE_PEAK,
    WEIGHTS,
    condition_weights,
    event_amplitudes,
    haemodynamic_response,
    site_profiles,
    time_courses,
)
from fmrisynth.phantom.schedules import PROTOCOLS, conditions_of, draw_events
from fmrisynth.phantom.simulation import (
    Population,
    build_session,
    draw_participant,
    run_generator,
    simulate_run,
)

# Length of the runs and of the blocks of the Human Connectome Project (Barch et al., 2013), s.
HCP_RUN = {
    "EMOTION": 136,
    "GAMBLING": 192,
    "LANGUAGE": 237,
    "MOTOR": 214,
    "RELATIONAL": 176,
    "SOCIAL": 207,
    "WM": 301,
}
HCP_BLOCK = {"EMOTION": 18, "GAMBLING": 28, "MOTOR": 12, "RELATIONAL": 16, "SOCIAL": 20, "WM": 25}


@pytest.mark.parametrize("task", PROTOCOLS)
def test_protocol_has_the_length_of_the_original(task):
    assert PROTOCOLS[task].duration == pytest.approx(HCP_RUN[task], rel=0.1)
    blocks = [b for b in PROTOCOLS[task].blocks if b.trial_type != "rest"]
    if task in HCP_BLOCK:
        assert {b.duration for b in blocks} == {HCP_BLOCK[task]}


@pytest.mark.parametrize("duration", [40.0, 96.0, 250.0, 900.0])
@pytest.mark.parametrize("task", PROTOCOLS)
def test_events_fill_the_run_and_hold_every_condition(task, duration):
    events = draw_events(task, duration, np.random.default_rng(3))
    ends = events["onset"] + events["duration"]
    assert list(events.columns) == ["onset", "duration", "trial_type"]
    assert set(events["trial_type"]) == set(PROTOCOLS[task].trial_types)
    assert events["onset"].iloc[0] >= 0
    assert (events["duration"] > 0).all()
    assert (ends.to_numpy()[:-1] <= events["onset"].to_numpy()[1:] + 0.0015).all()
    assert duration / 2 < ends.iloc[-1] <= duration


def test_trials_keep_their_length_when_the_run_is_shortened():
    for duration in (100.0, 300.0, 600.0):
        onsets = draw_events("WM", duration, np.random.default_rng(0))["onset"].diff()
        assert onsets.median() == pytest.approx(2.5, rel=0.25)


def test_designs_differ_between_draws_and_repeat_with_the_seed():
    first, again, other = (draw_events("MOTOR", 96.0, np.random.default_rng(s)) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert list(first["trial_type"]) != list(other["trial_type"])


def test_every_condition_has_weights_and_a_peak():
    conditions = set(conditions_of(tuple(PROTOCOLS)))
    assert set(WEIGHTS) == conditions == set(RELATIVE_PEAK)
    weights = condition_weights(list(WEIGHTS))
    named = {name for row in WEIGHTS.values() for name in row}
    # Every name stands for one site or for two sides.
    assert (np.count_nonzero(weights, axis=1) >= [len(row) for row in WEIGHTS.values()]).all()
    assert len(named) > 20


def test_splines_sum_to_one_everywhere():
    lattice = SplineLattice(Grid(9.0), 31.0)
    ones = lattice.evaluate(np.ones((2, *lattice.knots), np.float32))
    assert ones.shape == (2, *Grid(9.0).shape[::-1])
    np.testing.assert_allclose(ones, 1.0, rtol=1e-5)


def test_splines_follow_the_axis_they_belong_to():
    lattice = SplineLattice(Grid(9.0), 31.0)
    ramp = np.zeros((1, *lattice.knots), np.float32)
    ramp += np.arange(lattice.knots[1], dtype=np.float32)[None, None, :, None]
    field = lattice.evaluate(ramp)[0]
    # Cubic B-splines reproduce a line: here along y, one unit in 31 mm.
    np.testing.assert_allclose(np.diff(field, axis=1), 9.0 / 31.0, rtol=1e-3)
    np.testing.assert_allclose(np.diff(field, axis=0), 0.0, atol=1e-5)


def test_random_fields_have_unit_variance_and_the_smoothness_asked_for():
    grid = Grid(6.0)
    fields = random_fields(SplineLattice(grid, 12.0), 60, np.random.default_rng(0))
    assert fields.std() == pytest.approx(1.0, abs=0.02)
    correlation = (fields[..., 1:] * fields[..., :-1]).mean()
    # A kernel of SD 12 / √3 mm gives exp(−6² / (4 · 48)).
    assert correlation == pytest.approx(np.exp(-36 / (4 * 48)), abs=0.03)


def test_weighted_sum_is_a_matrix_product():
    rng = np.random.default_rng(0)
    weights, maps = rng.standard_normal((5, 3)), rng.standard_normal((3, 40))
    np.testing.assert_allclose(weighted_sum(weights, maps), weights @ maps, rtol=1e-5, atol=1e-6)


def test_haemodynamic_response_has_sum_one_and_moves_with_the_latency():
    early, late = haemodynamic_response(-1.0), haemodynamic_response(1.0)
    assert early.sum() == pytest.approx(1.0)
    assert (late.argmax() - early.argmax()) * 0.05 == pytest.approx(2.0, abs=0.1)


def test_sustained_event_reaches_its_amplitude():
    events = pd.DataFrame({"onset": [0.0], "duration": [60.0], "trial_type": ["a"]})
    course = time_courses(events, np.array([1.7]), ["b", "a"], 0.3, np.arange(0.0, 60.0, 2.0))
    assert course.shape == (30, 2)
    assert course[-5:, 1] == pytest.approx(1.7, rel=0.02)
    assert not course[:, 0].any()


def test_close_events_saturate_and_trials_vary():
    onset = np.array([10.0, 12.0, 14.0, 60.0])
    events = pd.DataFrame({"onset": onset, "duration": 2.0, "trial_type": "a"})
    mean = event_amplitudes(events)
    assert mean[1] == mean[2] < 0.9
    assert mean[0] > mean[3] > 1.1
    drawn = [event_amplitudes(events, np.random.default_rng(s)) for s in range(400)]
    np.testing.assert_allclose(np.mean(drawn, axis=0), mean, rtol=0.06)
    assert (np.std(drawn, axis=0) > 0.2).all()


def test_site_profiles_peak_where_they_are_displaced_to():
    coordinates = Grid(4.0).coordinates().reshape(3, -1)
    still = site_profiles(coordinates, np.ones(coordinates.shape[1]))
    shift = np.zeros((3, len(still)))
    shift[1] = 8.0
    moved = site_profiles(coordinates, np.ones(coordinates.shape[1]), shift)
    offset = coordinates[:, moved.argmax(axis=1)] - coordinates[:, still.argmax(axis=1)]
    np.testing.assert_allclose(offset, shift, atol=1e-4)


def test_networks_are_bilateral_and_their_mixing_is_the_participants_own():
    centres, _ = population_networks()
    mirrored = centres * (-1.0, 1.0, 1.0)
    np.testing.assert_allclose(np.sort(centres, axis=1), np.sort(mirrored, axis=1))
    mixings = [draw_connectivity(np.random.default_rng(s)).mixing for s in range(8)]
    correlations = np.stack([m @ m.T for m in mixings])[:, *np.triu_indices(len(centres), 1)]
    assert np.allclose([np.diag(m @ m.T) for m in mixings], 1.0)
    between = np.corrcoef(correlations)[np.triu_indices(8, 1)]
    assert 0.1 < between.mean() < 0.9


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"tasks": ("EMOTION", "CHESS")}, "EMOTION, GAMBLING"),
        ({"tasks": ()}, "EMOTION, GAMBLING"),
        ({"n_volumes": 10}, "at least 30 s"),
        ({"tsnr": float("nan")}, "tsnr is nan"),
        ({"effect_size": (2.0, 1.0)}, "effect_size is 1.0"),
        ({"n_participants": 0}, "n_participants is 0"),
    ],
)
def test_impossible_options_are_told_apart(option, words):
    with pytest.raises(UsageError, match=words):
        PhantomConfig(**option)


# Motion spikes


def energies(spikes):
    """Energy of the loudest volume over the median one's, run by run."""
    config = PhantomConfig(1, 48, voxel_size=12.0, tasks=("MOTOR",), tsnr=1000.0, spikes=spikes)
    population = Population.build(config)
    participant = draw_participant(population, 0)
    session = build_session(population, participant, "AP")
    found = []
    for number in range(20):
        rng = run_generator(config, 0, "MOTOR", "AP", number + 1)
        signal = simulate_run(population, participant, session, "MOTOR", rng).signal
        energy = np.square(np.diff(signal, axis=0)).sum(1)  # a jerk is sudden, unlike responses
        found.append(energy.max() / np.median(energy))
    return np.array(found)


def test_without_spikes_no_volume_stands_out():
    assert energies(0.0).max() < 12
    assert np.median(energies(3.0)) > 30


def test_spikes_belong_to_gaussian_realism():
    with pytest.raises(UsageError, match="full has motion of its own"):
        PhantomConfig(realism="full", spikes=0.0)
