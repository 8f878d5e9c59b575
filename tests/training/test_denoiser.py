"""The denoiser's training: windows of the runs, one step as in one process, learning, resuming."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from support.processes import leave_process_group
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
from fmrisynth.config.presets import DEMO
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.latent_space import LatentSpace
from fmrisynth.model.noise.white import WhiteNoise
from fmrisynth.training.denoiser import DiffusionLearner, _set_gate
from fmrisynth.training.loop import Budget, TrainingInterrupted, run_learner
from fmrisynth.training.skill import ValidationWindows
from fmrisynth.training.window_noise import WindowNoise
from fmrisynth.training.windows import LatentRuns, Windows

TRAINING = DiffusionTraining(batch_size=4, learning_rate=3e-3)
LATENTS = (4, 5, 4)


def cpu():
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


def train(learner, directory, steps):
    run_learner(learner, Budget(steps), fabric=cpu(), directory=directory, title="Test")
    return learner


def latent_runs(place=(2, 2, 2), size=6.0):
    """Two participants, whose latents follow the condition "hand" at one voxel or everywhere."""
    mask = torch.ones(LATENTS, dtype=torch.bool)
    mask[0, 0] = False
    active = np.zeros(LATENTS, bool)
    active[place] = True
    active &= mask.numpy()
    conditions = [
        run_condition(blocks(*names)) for names in (("hand", "foot", "hand"), ("foot", "hand"))
    ]
    latents = []
    for field, condition in zip(smooth_fields(mask, 2, 40, 0.3), conditions, strict=True):
        raw = field.numpy().copy()
        raw[:, 0, active] += size * condition.design.evoked[:, 1, :1]
        latents.append(raw.astype(np.float16))
    small = [_shrunk(c) for c in conditions]
    space = LatentSpace(1, mask)
    own = np.zeros((2 * len(VOCABULARY.trial_types), int(mask.sum())), np.float32)
    own[2, active[mask.numpy()]] = size  # hand by the HRF
    levels = [torch.ones(LATENTS), torch.full(LATENTS, 2.0)]
    return LatentRuns(
        latents, small, levels, ["01", "02"], space, {"01": own, "02": own}, removed=False
    )


def _shrunk(condition):
    """Anatomy of a grid twice as large as these latents."""
    condition._maps = condition._maps[..., : 2 * 4, : 2 * 5, : 2 * 4]
    return condition


def diffusion_learner(
    training=TRAINING, config=DENOISER, fabric=None, *, validate=False, runs=None, **more
):
    torch.manual_seed(1)
    runs = latent_runs() if runs is None else runs
    denoiser = Denoiser(config, VOCABULARY, 1, runs.mask, 2)
    group = WhiteNoise(1, runs.mask)
    noise = WindowNoise([group] * len(runs), runs.participants, group)
    validation = None
    if validate:
        validation = ValidationWindows(runs.of(["02"]), noise.of(["02"]), N_FRAMES, 3)
        runs, noise = runs.of(["01"]), noise.of(["01"])
    windows = Windows(runs, N_FRAMES, training.onset_share)
    return DiffusionLearner(
        fabric or cpu(), denoiser, training, windows, noise, 3, validation=validation, **more
    )


def losses(learner, steps=4):
    return [float(learner.step(i, i / steps)["loss"]) for i in range(steps)]


def test_micro_batches_of_windows_add_up_to_the_batch():
    whole = diffusion_learner(replace(TRAINING, batch_size=4))
    split = diffusion_learner(replace(TRAINING, batch_size=4, micro_batch=3))
    np.testing.assert_allclose(losses(split), losses(whole), rtol=1e-4)


def test_neighbours_in_a_batch_are_windows_of_one_run_with_opposite_noise():
    learner = diffusion_learner(replace(TRAINING, batch_size=8))
    runs, noises = learner.noise.draw(0, range(8))
    for even in range(0, 8, 2):
        assert runs[even] == runs[even + 1]
        assert torch.equal(noises[even], -noises[even + 1])
    assert len(set(runs.values())) > 1


def losses_of_a_rank(fabric, changes):
    torch.set_num_threads(1)
    config = replace(DENOISER, backbone=replace(DENOISER.backbone, **changes))
    course = losses(diffusion_learner(replace(TRAINING, batch_size=4), config, fabric))
    leave_process_group()
    return course


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


@pytest.mark.parametrize("regress", [False, True])
@pytest.mark.parametrize("validate", [False, True])
def test_the_denoiser_resumes_bit_by_bit(tmp_path, regress, validate):
    def learner():
        return diffusion_learner(regress=regress, validate=validate)

    whole = train(learner(), tmp_path / "whole", steps=6)
    halted = learner()
    inner = halted.step

    def step(number, progress):
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(number, progress)

    halted.step = step
    with pytest.raises(TrainingInterrupted):
        train(halted, tmp_path / "broken", steps=6)
    resumed = train(learner(), tmp_path / "broken", steps=6)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert_same(resumed.best.state_dict(), whole.best.state_dict())
    start = learner().state_dict()["model"]
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


def test_the_rate_follows_the_schedule():
    learner = diffusion_learner(DiffusionTraining(batch_size=2, learning_rate=0.01, warmup=0.1))
    shown = learner.step(0, 0.55)  # half a cosine is at one half there
    assert shown["learning_rate"] == pytest.approx(0.005)
    assert [group["lr"] for group in learner.optimizer.param_groups] == [pytest.approx(0.005)]
    trained = {p for group in learner.optimizer.param_groups for p in group["params"]}
    assert trained == set(learner.model.parameters())


# Regression before diffusion, where there is no response model


def test_regression_is_a_share_of_the_training_that_fades():
    learner = diffusion_learner(replace(TRAINING, regression_share=0.4), regress=True)
    shares = [learner._regressing(p) for p in (0.0, 0.1, 0.2, 0.3, 0.4, 0.9)]
    assert shares == pytest.approx([1, 1, 1, 0.5, 0, 0])
    assert diffusion_learner(TRAINING)._regressing(0.0) == 0
    without = diffusion_learner(replace(TRAINING, regression_share=0.0), regress=True)
    assert without._regressing(0.0) == 0


def test_regression_learns_at_a_higher_rate_that_fades_with_it():
    learner = diffusion_learner(replace(TRAINING, warmup=0.0), regress=True)
    plain = diffusion_learner(replace(TRAINING, warmup=0.0))
    rates = [
        learner.step(step, progress)["learning_rate"] / plain.step(step, progress)["learning_rate"]
        for step, progress in enumerate((0.1, TRAINING.regression_share * 0.75, 0.9))
    ]
    assert rates == pytest.approx([2, 1.5, 1])


def noise_of(learner, indices):
    return learner._batch(0, indices, 0.0)[1]


def test_neighbours_have_one_noise_with_opposite_signs_whoever_draws_it():
    learner = diffusion_learner()
    noise = noise_of(learner, range(4))
    assert noise[0].std() > 0.5
    assert noise[1].equal(-noise[0])
    assert noise[3].equal(-noise[2])
    assert not noise[2].abs().equal(noise[0].abs())
    assert noise_of(learner, [1, 2]).equal(noise[1:3])  # as of a process that has these alone


def test_noise_that_was_prepared_is_what_is_drawn_when_it_is_asked_for():
    prepared, drawn = (diffusion_learner().noise for _ in range(2))
    prepared.prepare(1, range(4))
    for step, indices in ((0, range(2)), (1, range(2)), (1, range(4))):
        runs, noises = prepared.draw(step, indices)
        expected_runs, expected = drawn.draw(step, indices)
        assert runs == expected_runs
        assert all(noises[i].equal(expected[i]) for i in indices)
        prepared.prepare(step + 1, indices)  # whatever comes next


@pytest.mark.parametrize(("noise", "prediction"), [("coloured", "v"), ("white", "epsilon")])
def test_the_target_of_the_regression_is_the_fitted_response_of_each_window(noise, prediction):
    """In units of the noise, and zero where the condition is withheld."""
    config = replace(DENOISER, noise=noise, prediction=prediction)
    training = replace(TRAINING, batch_size=32, condition_dropout=0.3)
    learner = diffusion_learner(training, config, regress=True)
    _, _, theta, condition, regression = learner._batch(0, range(32), 1.0)
    assert torch.equal(regression.share, torch.ones(32))
    expected = 6 * condition.evoked[:, :, 1, 0] * condition.condition_mask[:, None]
    found = regression.mean[:, :, 0, 2, 2, 2]
    loud = (found - expected / 2).abs().amax(1) < (found - expected).abs().amax(1)
    torch.testing.assert_close(found, torch.where(loud[:, None], expected / 2, expected))
    assert {bool(x) for x in loud} == {True, False}  # windows of both participants
    assert (condition.condition_mask == 0).any()
    elsewhere = regression.mean.clone()
    elsewhere[:, :, 0, 2, 2, 2] = 0
    assert not elsewhere.any()
    # for other noise or ε the target is exact near pure noise alone
    assert (bool((theta > 1.29).all()), bool((theta < 1.0).any())) == (
        (False, True) if prediction == "v" else (True, False)
    )


def test_the_denoiser_learns_by_regression():
    """The error about the fitted responses falls, without the noise of the diffusion's targets."""
    training = replace(TRAINING, batch_size=8, learning_rate=1e-2)
    learner = diffusion_learner(training, regress=True, runs=latent_runs(..., 2.0))

    @torch.no_grad()
    def losses():
        batches = (learner._batch(n, range(8), 1.0) for n in range(100, 106))
        return np.array([float(learner._loss(*batch)) for batch in batches])

    before = losses()
    for step in range(40):
        learner.step(step, 0.2)
    after = losses()
    assert before.mean() < 1  # the diffusion's is about 1 and cannot fall far
    assert after.mean() < 0.8 * before.mean()


# Validation


@pytest.mark.parametrize(("kind", "expected"), [("network", 0.0), ("none", 1.0)])
def test_a_network_that_nobody_can_vouch_for_is_left_out_unless_it_is_all_there_is(kind, expected):
    config = replace(DEMO, response=replace(DEMO.response, kind=kind))
    denoiser = Denoiser(DENOISER, VOCABULARY, 1, torch.ones(LATENTS, dtype=torch.bool), 2)
    _set_gate(denoiser, None, config)
    assert (denoiser.gate == expected).all()


@pytest.mark.parametrize(("kind", "cautious"), [("network", True), ("glm", True), ("none", False)])
def test_the_gate_is_cautious_unless_it_would_make_the_response_smaller(
    monkeypatch, kind, cautious
):
    seen = {}

    def support(denoiser, validation, least_gain, **more):
        seen.update(more)
        return {"gate": torch.full_like(denoiser.gate, 0.5)}

    monkeypatch.setattr("fmrisynth.training.denoiser.support", support)
    config = replace(DEMO, response=replace(DEMO.response, kind=kind))
    denoiser = Denoiser(DENOISER, VOCABULARY, 1, torch.ones(LATENTS, dtype=torch.bool), 2)
    learner = diffusion_learner(validate=True)
    _set_gate(denoiser, learner.validation, config)
    assert seen == {"cautious": cautious}
    assert (denoiser.gate == 0.5).all()


def test_the_weights_that_did_best_on_validation_are_kept(monkeypatch):
    """Of three checks the second was the best: later weights do not become the model's."""
    gains = iter([0.1, 0.3, 0.2, 0.2])
    monkeypatch.setattr("fmrisynth.training.denoiser.validation_gain", lambda *_: next(gains))
    learner, kept = diffusion_learner(validate=True), []
    for step, progress in enumerate((0.0, 0.2, 0.25, 0.4, 0.6)):
        shown = learner.step(step, progress)
        kept.append((shown["validation_gain"], dict(learner.averaged.state_dict())))
        kept[-1] = (kept[-1][0], {k: v.clone() for k, v in kept[-1][1].items()})
    assert [g for g, _ in kept[1:]] == [0.1, 0.1, 0.3, 0.2]  # checks are some steps apart
    assert_same(dict(learner.best.state_dict()), kept[3][1])


@pytest.mark.parametrize(
    ("gains", "patience", "ends_at"),
    [
        ([0.0, 0.00009, 0.00008, 1, 1], 3, 3),  # no gain worth the name, three times
        ([0.0, 0.0002, 0.0001, 0.0002, 0.00025], 3, 5),  # counted from the best
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, None),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0, None),
    ],
)
def test_a_training_that_gains_nothing_ends(gains, patience, ends_at, monkeypatch):
    following = iter(gains)
    monkeypatch.setattr("fmrisynth.training.denoiser.validation_gain", lambda *_: next(following))
    learner = diffusion_learner(replace(TRAINING, patience=patience), validate=True)
    finished = []
    for check in range(1, len(gains) + 1):
        learner.step(check, (check + 0.01) / 6)
        finished.append(learner.finished)
    assert (finished.index(True) + 1 if any(finished) else None) == ends_at
    resumed = diffusion_learner(replace(TRAINING, patience=patience), validate=True)
    resumed.load_state_dict(learner.state_dict())
    assert resumed.finished == learner.finished


def test_without_validation_a_training_goes_on_to_its_last_step():
    learner = diffusion_learner(replace(TRAINING, patience=1))
    for check in range(7):
        learner.step(check, check / 7)
    assert not learner.finished


def test_nothing_is_checked_while_regression_lasts():
    training = replace(TRAINING, regression_share=0.5)
    learner = diffusion_learner(training, validate=True, regress=True)
    gains = [float(learner.step(n, p)["validation_gain"]) for n, p in enumerate((0.0, 0.4, 0.6))]
    assert [gain == 0 for gain in gains] == [True, True, False]
