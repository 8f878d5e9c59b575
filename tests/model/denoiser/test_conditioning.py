"""Conditions: what a window of a run is told, and what is refused."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from support.tiny_model import N_FRAMES, SHAPE, VOCABULARY, batch, blocks, make_run, run_condition

from fmrisynth.errors import ModelError
from fmrisynth.model.denoiser.conditioning import HISTORY, RunCondition, Vocabulary

HAND_THEN_FOOT = blocks("hand", "foot", "hand")
V = len(VOCABULARY.trial_types)


def column(task, name):
    return VOCABULARY.trial_types.index((task, name))


def frame_features(condition):
    """(L, V, 3): share, HRF, derivative."""
    return condition.frames[0].view(-1, V, 3)


# The vocabulary


def test_a_vocabulary_holds_every_name_once():
    runs = [
        make_run(entities={"sub": "01", "task": "wm"}, phase_encoding="j", t_r=2.0),
        make_run(phase_encoding="unknown", site="unknown", t_r=0.5),
        make_run(phase_encoding="i", site="there", t_r=1.0),
    ]
    events = [blocks("two", "zero", "two"), blocks("hand"), blocks("foot", "hand")]
    found = Vocabulary.of(runs, events)
    assert found.trial_types == (
        ("motor", "foot"),
        ("motor", "hand"),
        ("wm", "two"),
        ("wm", "zero"),
    )
    assert found.tasks == ("motor", "wm")
    assert found.phase_encodings == ("i", "j")
    assert found.sites == ("here", "there")
    assert found.longest_history == 40  # 20 s at the shortest TR
    assert Vocabulary.of(runs[::-1], events[::-1]) == found
    assert Vocabulary.from_json(found.to_json()) == found


def test_the_same_name_in_two_tasks_is_two_conditions():
    runs = [make_run(), make_run(entities={"sub": "01", "task": "wm"})]
    found = Vocabulary.of(runs, [blocks("rest"), blocks("rest")])
    assert found.trial_types == (("motor", "rest"), ("wm", "rest"))
    condition = RunCondition(
        runs[1], blocks("rest"), np.zeros((2, *SHAPE)), found, 40, 1 / 128
    ).window(0, 40)
    assert (condition.evoked[0, :, 0] == 0).all()
    assert (condition.evoked[0, :, 1] != 0).any()


def test_unknown_attributes_have_index_zero():
    assert VOCABULARY.attribute_sizes == (3, 3, 2)
    assert VOCABULARY.attributes(make_run()) == [1, 2, 1]
    strange = make_run(entities={"sub": "01", "task": "rest"}, phase_encoding="k", site="elsewhere")
    assert VOCABULARY.attributes(strange) == [0, 0, 0]
    assert VOCABULARY.attributes(make_run(phase_encoding="unknown"))[1] == 0


def test_an_unknown_trial_type_is_refused_with_those_that_are_known():
    with pytest.raises(ModelError) as error:
        VOCABULARY.check("motor", blocks("hand", "tongue"), "sub-01_events.tsv")
    for word in ("sub-01_events.tsv", "'tongue'", "motor", "foot, hand"):
        assert word in str(error.value)
    assert "zero" not in str(error.value)
    VOCABULARY.check("motor", HAND_THEN_FOOT, "sub-01_events.tsv")


def test_events_of_unknown_trial_types_are_baseline():
    events = blocks("hand", "tongue", "foot")
    known = VOCABULARY.known_events("motor", events, "sub-01_events.tsv")
    assert list(known["trial_type"]) == ["hand", "foot"]
    with pytest.raises(ModelError, match="'tongue'"):  # nothing would be left of the design
        VOCABULARY.known_events("motor", blocks("tongue"), "sub-01_events.tsv")
    assert VOCABULARY.known_events("motor", events[:0], "").empty
    with pytest.raises(ModelError, match="task 'rest'"):
        VOCABULARY.known_events("rest", events[:0], "a run without events")


def test_an_unknown_task_is_refused_with_those_that_are_known():
    with pytest.raises(ModelError, match=r"task 'rest'; it has motor, wm") as error:
        VOCABULARY.check("rest", blocks("hand"), "sub-01_events.tsv")
    assert "sub-01_events.tsv" in str(error.value)


# Windows


def test_events_decide_frames_and_regressors():
    one = run_condition(HAND_THEN_FOOT).window(0, N_FRAMES)
    other = run_condition(blocks("foot", "hand", "hand")).window(0, N_FRAMES)
    for name in ("frames", "evoked"):
        assert not torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("attributes", "t_r", "times", "valid", "anatomy"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    # exchanging the two names exchanges their columns (each has one block by then)
    window = frame_features(one)[-N_FRAMES:]
    exchanged = frame_features(other)[-N_FRAMES:]
    hand, foot = column("motor", "hand"), column("motor", "foot")
    torch.testing.assert_close(window[:, hand], exchanged[:, foot])


def test_the_frames_say_what_is_on():
    condition = run_condition(HAND_THEN_FOOT).window(0, 20)
    share = frame_features(condition)[-20:, :, 0]
    expected = torch.zeros(20, V)
    expected[2:6, column("motor", "hand")] = 1  # 4 to 12 s at 2 s a frame
    expected[12:16, column("motor", "foot")] = 1
    torch.testing.assert_close(share, expected)
    assert frame_features(condition)[:, column("wm", "two")].abs().sum() == 0


def test_windows_are_cuts_of_one_run():
    run = run_condition(HAND_THEN_FOOT)
    whole = run.window(0, 40)
    for start in (0, 5, 32):
        window = run.window(start, N_FRAMES)
        here = slice(start, start + N_FRAMES)
        assert torch.equal(window.evoked[0], whole.evoked[0, here])
        history = VOCABULARY.longest_history
        assert torch.equal(
            window.frames[0, history:], whole.frames[0, history + start :][:N_FRAMES]
        )
        np.testing.assert_allclose(window.times[0, history:], 2.0 * np.arange(N_FRAMES))


def test_the_history_before_the_run_is_padded():
    run, history = run_condition(HAND_THEN_FOOT), VOCABULARY.longest_history
    first, later = run.window(0, N_FRAMES), run.window(4, N_FRAMES)
    for condition, missing in ((first, history), (later, history - 4)):
        assert condition.frames.shape == (1, history + N_FRAMES, V * 3)
        assert condition.valid[0].tolist() == [False] * missing + [True] * (
            history + N_FRAMES - missing
        )
        assert (condition.frames[0, :missing] == 0).all()
    assert first.times[0, 0] == pytest.approx(-history * 2.0)
    full = run.window(20, N_FRAMES)
    assert full.valid.all()
    # the block at 24 to 32 s lies in the history of the window that starts at 40 s
    assert frame_features(full)[:history, column("motor", "foot"), 0].sum() == pytest.approx(4)


@pytest.mark.parametrize("t_r", [2.0, 3.0, 5.0])
def test_the_history_is_as_long_in_seconds_at_any_tr(t_r):
    condition = run_condition(HAND_THEN_FOOT, t_r=t_r).window(25, N_FRAMES)
    seen = condition.times[0][condition.valid[0]]
    assert -HISTORY - t_r < float(seen.min()) <= -HISTORY + 1e-6
    assert condition.frames.shape[1] == VOCABULARY.longest_history + N_FRAMES
    assert float(condition.t_r) == t_r


def test_runs_of_different_tr_share_a_batch():
    windows = [
        run_condition(HAND_THEN_FOOT, t_r=t_r).window(0, N_FRAMES) for t_r in (1.0, 2.0, 3.3)
    ]
    joined = batch(*windows)
    assert joined.frames.shape[0] == 3
    assert joined.t_r.tolist() == pytest.approx([1.0, 2.0, 3.3])
    for index, window in enumerate(windows):
        part = joined[index : index + 1]
        for name in (f.name for f in fields(part)):
            assert torch.equal(getattr(part, name), getattr(window, name)), name


def test_the_start_time_moves_the_frames_against_the_events():
    late = run_condition(HAND_THEN_FOOT, start_time=2.0).window(0, 20)
    share = frame_features(late)[-20:, column("motor", "hand"), 0]
    assert share.nonzero().flatten().tolist()[:4] == [1, 2, 3, 4]


def test_onsets_are_frames_of_the_run():
    events = blocks("hand", "foot", "hand", first=-3.0)
    condition = run_condition(events)
    assert condition.onsets.tolist() == [0, 8, 18]
    assert run_condition(blocks("hand", first=79.5)).onsets.tolist() == [39]


def test_withholding_keeps_the_anatomy():
    condition = run_condition(HAND_THEN_FOOT).window(0, N_FRAMES)
    withheld = condition.unconditional()
    assert condition.condition_mask.tolist() == [1]
    assert withheld.condition_mask.tolist() == [0]
    assert torch.equal(withheld.anatomy_mask, condition.anatomy_mask)
    assert torch.equal(withheld.anatomy, condition.anatomy)
    assert replace(withheld, condition_mask=condition.condition_mask).condition_mask.tolist() == [1]


@pytest.mark.parametrize("n_volumes", [3, N_FRAMES - 1])
def test_a_run_shorter_than_a_window_has_a_window(n_volumes):
    """The synthesis of a short run draws a whole window and cuts it."""
    window = run_condition(blocks("hand", first=0.0), n_volumes=n_volumes).window(0, N_FRAMES)
    assert window.evoked.shape == (1, N_FRAMES, V, 2)
    assert window.frames.shape == (1, VOCABULARY.longest_history + N_FRAMES, V * 3)


def test_history_is_about_the_length_of_the_response():
    assert math.ceil(HISTORY / 2.0) == VOCABULARY.longest_history
