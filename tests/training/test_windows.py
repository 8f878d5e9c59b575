"""Windows of the runs: where they are cut, and what is taken out of their latents."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.latent_world import MASK, patterns, simulate
from support.tiny_model import N_FRAMES, VOCABULARY

from fmrisynth.training.loop import step_generator
from fmrisynth.training.windows import Windows

N_VOLUMES = 24


@pytest.fixture(scope="module")
def runs():
    maps = np.repeat(patterns()[None], 2, 0)
    return simulate(maps, n_volumes=N_VOLUMES, levels=np.array([1.0, 2.0])).runs


def test_every_start_of_every_run_is_drawn(runs):
    windows = Windows(runs, N_FRAMES, onset_share=0.0)
    drawn = {windows.choose(step_generator(0, step)) for step in range(1500)}
    expected = {(r, s) for r in range(len(runs)) for s in range(N_VOLUMES - N_FRAMES + 1)}
    assert drawn == expected


def test_windows_may_start_at_onsets(runs):
    windows = Windows(runs, N_FRAMES, onset_share=1.0)
    for step in range(40):
        run, start = windows.choose(step_generator(0, step))
        last = N_VOLUMES - N_FRAMES
        assert start in np.minimum(runs.conditions[run].onsets, last)
        window = runs.conditions[run].window(start, N_FRAMES)
        frames = window.frames[0, VOCABULARY.longest_history :].view(N_FRAMES, -1, 3)
        assert start == last or frames[0, :, 0].max() > 0.5  # something is on in the first


def test_noise_is_the_latents_without_response_and_level(runs):
    response = np.random.default_rng(0).standard_normal((8, int(MASK.sum()))).astype(np.float32)
    known = replace(runs, responses={"00": response, "01": 2 * response})
    for index, factor in ((0, 1.0), (3, 2.0)):
        raw = torch.from_numpy(runs.latents[index])[5:13]
        mean = torch.zeros_like(raw)
        regressors = torch.from_numpy(runs.regressors(index)[5:13])
        mean[..., MASK] = factor * (regressors @ torch.from_numpy(response))[:, None]
        level = 2.0 if index == 3 else 1.0
        expected = (raw - mean) / level * MASK
        torch.testing.assert_close(known.noise(index, 5, 8), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(known.response(index, 5, 8), mean / level)
        kept = replace(known, removed=False).noise(index, 5, 8)
        torch.testing.assert_close(kept, raw / level * MASK)
        # of participants whose response nobody knows it stays
        unknown = replace(known, responses={}).noise(index, 5, 8)
        torch.testing.assert_close(unknown, kept)


def test_the_whole_run_is_its_windows(runs):
    whole = runs.noise(1)
    assert whole.shape == runs.latents[1].shape
    for start in (0, 7, N_VOLUMES - N_FRAMES):
        torch.testing.assert_close(runs.noise(1, start, N_FRAMES), whole[start : start + N_FRAMES])


def test_the_runs_of_some_participants(runs):
    some = runs.of(["01"])
    assert list(some.participants) == ["01", "01"]
    assert len(some) == 2
    torch.testing.assert_close(some.noise(0), runs.noise(2))
    assert some.removed == runs.removed
    assert len(runs.of([])) == 0


def test_runs_without_responses_are_without_the_drawn_ones(runs):
    response = np.random.default_rng(0).standard_normal((8, int(MASK.sum()))).astype(np.float32)
    own = {"00": 0 * response, "01": 0 * response}
    known = replace(runs, responses=own, drawn={"00": response, "01": response})
    expected = replace(runs, responses=known.drawn).noise(1)
    assert torch.equal(known.of(["00"]).without_responses().noise(1), expected)
    assert not torch.equal(known.noise(1), expected)
    learning = replace(runs, responses=own)  # a network that learns the responses
    assert torch.equal(learning.without_responses().noise(1), learning.noise(1))
