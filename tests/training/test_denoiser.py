"""The denoiser's training: windows of the runs, one step as in one process, learning, resuming."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from fmrisynth.training.evoked import start_evoked
from lightning_fabric import Fabric
from support.states import assert_same
from support.tiny_model import (
    DENOISER,
    N_FRAMES,
    VOCABULARY,
    blocks,
    run_condition,
    smooth_fields,
)

from fmrisynth.config.diffusion import DiffusionTraining
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.training.denoiser import DiffusionLearner
from fmrisynth.training.loop import Budget, TrainingInterrupted, run_learner, step_generator
from fmrisynth.training.windows import Windows

TRAINING = DiffusionTraining(batch_size=4, learning_rate=3e-3)
LATENTS = (4, 5, 4)


def cpu():
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


def train(learner, directory, steps):
    run_learner(learner, Budget(steps), fabric=cpu(), directory=directory, title="Test")
    return learner


def windows(onset_share=0.5):
    """Two runs whose latents follow the condition "hand" at one voxel."""
    mask = torch.ones(LATENTS, dtype=torch.bool)
    mask[0, 0] = False
    conditions = [
        run_condition(blocks(*names)) for names in (("hand", "foot", "hand"), ("foot", "hand"))
    ]
    latents = []
    for field, condition in zip(smooth_fields(mask, 2, 40, 0.3), conditions, strict=True):
        raw = field.numpy().copy()
        raw[:, 0, 2, 2, 2] += 6 * condition.design.evoked[:, 1, 0]
        latents.append(raw.astype(np.float16))
    small = [_shrunk(c) for c in conditions]
    space = LatentSpace(1, mask).fit(latents)
    return Windows(latents, small, space, N_FRAMES, onset_share)


def _shrunk(condition):
    """Anatomy of a grid twice as large as these latents."""
    condition._anatomy = condition._anatomy[..., : 2 * 4, : 2 * 5, : 2 * 4]
    return condition


def diffusion_learner(training=TRAINING, config=DENOISER, fabric=None):
    torch.manual_seed(1)
    data = windows()
    denoiser = Denoiser(config, VOCABULARY, 1, data.latent_space.mask, 2)
    start_evoked(denoiser, data)
    noise = WhiteNoise(1, data.latent_space.mask)
    return DiffusionLearner(fabric or cpu(), denoiser, training, data, noise, seed=3)


def losses(learner, steps=4):
    return [float(learner.step(i, i / steps)["loss"]) for i in range(steps)]


def test_micro_batches_of_windows_add_up_to_the_batch():
    whole = diffusion_learner(replace(TRAINING, batch_size=4))
    split = diffusion_learner(replace(TRAINING, batch_size=4, micro_batch=3))
    np.testing.assert_allclose(losses(split), losses(whole), rtol=1e-4)


def losses_of_a_rank(fabric, changes):
    torch.set_num_threads(1)
    config = replace(DENOISER, backbone=replace(DENOISER.backbone, **changes))
    return losses(diffusion_learner(replace(TRAINING, batch_size=4), config, fabric))


@pytest.mark.slow
@pytest.mark.usefixtures("restored_process")
@pytest.mark.parametrize(
    "changes", [{}, {"architecture": "cnn"}, {"cross_attention": False, "frame_tokens": False}]
)
def test_two_processes_have_the_diffusion_losses_of_one(changes):
    config = replace(DENOISER, backbone=replace(DENOISER.backbone, **changes))
    alone = losses(diffusion_learner(replace(TRAINING, batch_size=4), config))
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn", precision="32-true")
    together = fabric.launch(losses_of_a_rank, changes)
    np.testing.assert_allclose(together, alone, rtol=1e-3)
    assert len(set(alone)) > 1


def test_windows_are_cut_from_the_runs():
    data = windows(onset_share=0.0)
    starts = set()
    for step in range(400):
        latents, condition = data.draw(step_generator(0, step))
        assert latents.shape == (1, N_FRAMES, 1, *LATENTS)
        matches = [
            (run, first)
            for run, raw in enumerate(data.latents)
            for first in range(len(raw) - N_FRAMES + 1)
            if torch.equal(
                latents[0],
                data.latent_space.standardise(
                    torch.from_numpy(raw[first : first + N_FRAMES]).float()
                ),
            )
        ]
        assert len(matches) == 1
        run, first = matches[0]
        assert torch.equal(condition.evoked, data.conditions[run].window(first, N_FRAMES).evoked)
        starts.add(first)
    # every start is drawn, from the first frame to the last that leaves room for a window
    assert starts == set(range(40 - N_FRAMES + 1))


def test_windows_may_start_at_onsets():
    data = windows(onset_share=1.0)
    for step in range(40):
        _, condition = data.draw(step_generator(0, step))
        frames = condition.frames[0, VOCABULARY.longest_history].view(-1, 3)
        assert frames[:, 0].max() > 0.5  # something is on in the first frame


def test_the_denoiser_resumes_bit_by_bit(tmp_path):
    whole = train(diffusion_learner(), tmp_path / "whole", steps=6)
    halted = diffusion_learner()
    inner = halted.step

    def step(number, progress):
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(number, progress)

    halted.step = step
    with pytest.raises(TrainingInterrupted):
        train(halted, tmp_path / "broken", steps=6)
    resumed = train(diffusion_learner(), tmp_path / "broken", steps=6)
    assert_same(resumed.state_dict(), whole.state_dict())
    start = diffusion_learner().state_dict()["model"]
    moved = [n for n, p in whole.state_dict()["model"].items() if not torch.equal(p, start[n])]
    assert len(moved) > 20


def test_the_denoiser_learns():
    """The loss of the same windows, noise and angles is lower after some steps than before."""
    learner = diffusion_learner()

    def losses():
        # at the end of the budget the learning rate is zero: nothing is learned here
        return np.array([float(learner.step(n, 1.0)["loss"]) for n in range(100, 110)])

    before = losses()
    assert np.array_equal(losses(), before)
    for n in range(50):
        learner.step(n, n / 50)
    after = losses()
    assert np.isfinite(after).all()
    assert after.mean() < 0.99 * before.mean()
    assert (after < before).sum() >= 8


def test_the_pathway_starts_at_the_regression():
    learner = diffusion_learner()
    evoked = learner.averaged.evoked
    response = torch.einsum("vj,jcxyz->vcxyz", evoked.coefficients[:, 0], evoked.maps).detach()
    hand = response[VOCABULARY.trial_types.index(("motor", "hand")), 0].abs()
    assert np.unravel_index(int(hand.argmax()), LATENTS) == (2, 2, 2)
    assert (evoked.maps[..., ~learner.windows.latent_space.mask] == 0).all()


def test_the_rates_follow_the_schedule():
    """The evoked-response pathway has a multiple of the backbone's rate, and no more weights."""
    training = DiffusionTraining(batch_size=2, learning_rate=0.01, warmup=0.1)
    evoked = replace(DENOISER.evoked, learning_rate_factor=4.0)
    learner = diffusion_learner(training, replace(DENOISER, evoked=evoked))
    shown = learner.step(0, 0.55)  # half a cosine is at one half there
    assert shown["learning_rate"] == pytest.approx(0.005)
    rates = {
        parameter: group["lr"]
        for group in learner.optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in learner.model.named_parameters():
        expected = 0.02 if ".evoked." in f".{name}" else 0.005
        assert rates.pop(parameter) == pytest.approx(expected), name
    assert not rates
