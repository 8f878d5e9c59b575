"""The noise of training windows: inferred for a run from the other runs of its participant."""

import gc

import numpy as np
import pytest
import torch
from support.tiny_model import N_FRAMES

from fmrisynth.model.noise.modal import ModalNoise
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.training import window_noise
from fmrisynth.training.window_noise import WindowNoise

MASK = torch.ones(4, 5, 4, dtype=torch.bool)
PARTICIPANTS = ("01", "01", "01", "02", "03", "03")
NOTHING = np.zeros((40, 0))
LOUD = (slice(0, 2), slice(None), slice(None))


def fields():
    """White noise; half of the brain has an amplitude of its own in each participant."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for participant in PARTICIPANTS:
        field = torch.randn(40, 1, *MASK.shape, generator=generator)
        field[:, :, *LOUD] *= {"01": 0.5, "02": 1.0, "03": 2.0}[participant]
        made.append(field)
    return made


@pytest.fixture(scope="module")
def group():
    noise = ModalNoise(1, MASK, 8, 0, order=2, frames=N_FRAMES).fit(fields(), NOTHING)
    noise.signal_per_frame.fill_(1.0)  # runs tell nearly all of their participant
    noise.remainder_signal.fill_(1.0)
    return noise


@pytest.fixture
def infer(tmp_path):
    return lambda group, runs: WindowNoise.infer(
        group, runs.__getitem__, PARTICIPANTS, NOTHING, 0, tmp_path
    )


def deviation(noise, run):
    """Standard deviation where participants differ."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([noise.draw(run, N_FRAMES, generator) for _ in range(60)])
    return float(drawn[:, :, 0, *LOUD].std())


def test_windows_have_the_noise_of_their_participant(group, infer):
    noise = infer(group, fields())
    assert deviation(noise, 0) == pytest.approx(0.5, abs=0.12)
    assert deviation(noise, 4) == pytest.approx(2.0, abs=0.3)


def test_who_has_one_run_has_the_noise_of_the_group(group, infer):
    assert infer(group, fields()).models[3] is group


@pytest.mark.parametrize("kind", ["white", "modal, of people who do not differ"])
def test_where_runs_tell_nothing_none_is_read(kind, tmp_path):
    white = WhiteNoise(1, MASK)
    same = ModalNoise(1, MASK, 8, 0, order=2, frames=N_FRAMES).fit(fields(), NOTHING)
    noise = white if kind == "white" else same

    def unread(index):
        raise AssertionError(index)

    models = WindowNoise.infer(noise, unread, PARTICIPANTS, NOTHING, 0, tmp_path).models
    assert models == [noise] * len(PARTICIPANTS)


def test_a_run_has_no_say_in_its_own_noise(group, infer):
    """It is synthesised from the participant's other runs, too."""
    runs = fields()
    before = infer(group, runs)
    runs[0] = 5 * runs[0]
    after = infer(group, runs)
    assert deviation(after, 0) == deviation(before, 0)
    assert deviation(after, 1) > 1.5 * deviation(before, 1)


def test_the_noise_of_some_participants_is_in_the_order_of_their_runs(group, infer):
    noise = infer(group, fields())
    some = noise.of(["02", "03"])
    assert list(some.models) == list(noise.models[3:])
    assert list(some.participants) == ["02", "03", "03"]


def test_no_more_runs_than_memory_is_meant_for_are_inferred(group, infer, monkeypatch):
    monkeypatch.setattr(window_noise, "OWN_RUNS", 2)
    noise = infer(group, fields())
    assert 1 <= sum(model is not group for model in noise.models) <= 2


def test_noise_on_the_disk_is_drawn_as_it_was_inferred(group, infer):
    runs = fields()
    known = [group.statistics(run) for run in runs[:3]]
    inferred, stored = group.infer(known[1:], NOTHING), infer(group, runs).models[0]
    loaded = stored.load()
    for name, buffer in inferred.named_buffers():
        assert loaded.get_buffer(name).equal(buffer), name
    assert loaded.modes is group.modes
    one, other = (
        model.sample_window(N_FRAMES, torch.Generator().manual_seed(3))
        for model in (inferred, stored)
    )
    assert one.equal(other)


def test_memory_does_not_grow_with_the_participants(tmp_path):
    """Each one's noise was held: a matrix of all modes by all modes."""
    modes, mask = 64, torch.ones(4, 4, 4, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    runs = [torch.randn(80, 1, *mask.shape, generator=generator) for _ in range(2)]
    group = ModalNoise(1, mask, modes, 0, order=2, frames=N_FRAMES).fit(runs, NOTHING)
    group.signal_per_frame.fill_(1.0)
    group.remainder_signal.fill_(1.0)

    def held(participants):
        """Bytes of all tensors that there are."""
        labels = [f"{i:02d}" for i in range(participants) for _ in range(2)]
        noise = WindowNoise.infer(group, lambda i: runs[i % 2], labels, NOTHING, 0, tmp_path)
        assert not any(model is group for model in noise.models)
        gc.collect()
        tensors = (t for t in gc.get_objects() if type(t) is torch.Tensor)
        return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    held(1)
    assert held(24) - held(4) < modes**2 * 4
