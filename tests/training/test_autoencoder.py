"""The autoencoder's training: it learns, resumes, splits, and stays stable."""

import io

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy.ndimage import gaussian_filter
from support.processes import leave_process_group
from support.states import assert_same

from fmrisynth.config.autoencoder import AdversarialConfig, AutoencoderTraining, VQGANConfig
from fmrisynth.errors import FmrisynthError, ModelError
from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.training.autoencoder import AutoencoderLearner

SHAPE = (16, 16, 16)
CONFIG = VQGANConfig(
    base_width=8, multipliers=(1, 2), norm_groups=4, patch=2, linear_path=True, codebook_size=32
)
CRITIC = AdversarialConfig(weight=0.2, start=0.0, warmup=0.0, width=8)
TRAINING = AutoencoderTraining(batch_size=4, learning_rate=3e-3, adversarial=CRITIC)


class SmoothNoise:
    """Volumes of smooth noise in a ball, reproducible by number."""

    def __init__(self, count=24):
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE]))
        self.mask = (grid**2).sum(0) < 0.9
        rng = np.random.default_rng(0)
        self.data = np.stack(
            [gaussian_filter(rng.standard_normal(SHAPE), 1.2) for _ in range(count)]
        )
        self.data = (self.data * self.mask / self.data[:, self.mask].std()).astype(np.float32)

    def __len__(self):
        return len(self.data)

    def frames(self, indices):
        return self.data[indices]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def volumes():
    return SmoothNoise()


def learner(volumes, config=CONFIG, training=TRAINING, *, fabric=None, precision="32-true", **more):
    fabric = fabric or Fabric(accelerator="cpu", devices=1, precision=precision)
    return AutoencoderLearner(fabric, config, training, volumes, volumes.mask, seed=5, **more)


def curve(learner, steps, start=0, total=20):
    return [
        {k: float(v) for k, v in learner.step(n, n / total).items()}
        for n in range(start, start + steps)
    ]


@pytest.mark.parametrize("quantizer", ["ema", "gradient", "kl", "none"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resuming_repeats_an_unbroken_training_bit_for_bit(volumes, quantizer, precision):
    config = VQGANConfig(**{**vars(CONFIG), "quantizer": quantizer})
    unbroken = learner(volumes, config, precision=precision)
    expected = curve(unbroken, 5)

    first = learner(volumes, config, precision=precision)
    curve(first, 3)
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    second = learner(volumes, config, precision=precision)
    second.load_state_dict(torch.load(stored, weights_only=True))
    assert curve(second, 2, start=3) == expected[3:]
    assert_same(second.state_dict(), unbroken.state_dict())


def test_the_global_generator_plays_no_part(volumes):
    torch.manual_seed(1)
    one = curve(learner(volumes), 2)
    torch.manual_seed(2)
    assert curve(learner(volumes), 2) == one


def test_micro_batches_add_up_to_the_batch(volumes):
    plain = AutoencoderTraining(batch_size=4, adversarial=AdversarialConfig(weight=0.0))
    pieces = AutoencoderTraining(
        batch_size=4, micro_batch=3, adversarial=AdversarialConfig(weight=0.0)
    )
    whole, split = (
        curve(learner(volumes, training=plain), 4),
        curve(learner(volumes, training=pieces), 4),
    )
    for one, other in zip(whole, split, strict=True):
        assert other["reconstruction"] == pytest.approx(one["reconstruction"], rel=1e-3)
        assert other["gradient"] == pytest.approx(one["gradient"], rel=2e-2)


def two_ranks(fabric):
    torch.set_num_threads(1)
    course = curve(learner(SmoothNoise(), fabric=fabric), 4)
    leave_process_group()
    return course


@pytest.mark.slow
@pytest.mark.usefixtures("restored_process")
def test_two_processes_have_the_loss_curve_of_one(volumes):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    together = fabric.launch(two_ranks)
    alone = curve(learner(volumes), 4)
    for one, other in zip(alone, together, strict=True):
        for name in ("reconstruction", "loss", "adversarial", "adversarial_weight", "codebook"):
            assert other[name] == pytest.approx(one[name], rel=2e-3, abs=1e-5), name


def test_a_batch_that_processes_cannot_share_is_refused(volumes, monkeypatch):
    one = learner(volumes, training=AutoencoderTraining(batch_size=3))
    monkeypatch.setattr(type(one.fabric), "world_size", 2)
    with pytest.raises(FmrisynthError, match="batch of 3 cannot be shared by 2"):
        one.step(0, 0.0)


def test_the_terms_logged_are_the_same_at_every_step(volumes):
    training = AutoencoderTraining(
        batch_size=2, adversarial=AdversarialConfig(weight=0.1, start=0.1, width=8)
    )
    rows = curve(learner(volumes, training=training), 4)
    assert len({tuple(row) for row in rows}) == 1
    assert rows[0]["adversarial"] == rows[0]["discriminator"] == 0.0
    assert rows[3]["discriminator"] != 0.0


@pytest.mark.slow
def test_reconstruction_stays_stable_when_the_discriminator_starts(volumes):
    """The error may not rise by more than 10 % (issue B): trackers tell of collapses."""
    steps, start = 60, 0.5
    critic = AdversarialConfig(weight=0.1, start=start, warmup=0.2, width=8)
    one = learner(volumes, training=AutoencoderTraining(batch_size=4, adversarial=critic))
    rows = curve(one, steps, total=steps)
    error = np.array([row["reconstruction"] for row in rows])
    at = int(steps * start)
    assert any(row["adversarial_weight"] > 0 for row in rows[at:])
    assert all(row["discriminator"] > 0 for row in rows[at:])
    assert np.isfinite(error).all()
    before = error[at - 10 : at].mean()
    smoothed = np.convolve(error[at:], np.ones(5) / 5, "valid")
    assert smoothed.max() < 1.1 * before


def test_training_lowers_the_error_and_the_average_follows(volumes):
    training = AutoencoderTraining(
        batch_size=4, learning_rate=3e-3, adversarial=AdversarialConfig(weight=0.0)
    )
    one = learner(volumes, training=training)
    rows = curve(one, 40, total=40)
    first, last = (np.mean([r["reconstruction"] for r in part]) for part in (rows[:5], rows[-5:]))
    assert last < 0.97 * first
    x = torch.from_numpy(volumes.data)[:, None]
    with torch.no_grad():
        x_hat = one.averaged.decode(one.averaged.encode(x))
    mask = torch.from_numpy(volumes.mask)
    assert ((x_hat - x) * mask).square().sum() / (mask.sum() * len(x)) < first
    assert 0.5 < rows[-1]["codebook_usage"] <= 1


def test_the_error_counts_the_brain_alone(volumes):
    class Dirty(SmoothNoise):
        def frames(self, indices):
            return np.where(self.mask, self.data[indices], 0).astype(np.float32)

    outside = Dirty()
    outside.data = np.where(outside.mask, outside.data, 50).astype(np.float32)
    assert curve(learner(outside), 1) == curve(learner(volumes), 1)


def test_fine_tuning_starts_from_the_weights_given(volumes):
    config = VQGANConfig(base_width=8, norm_groups=4, codebook_size=32)
    state = VQGAN(config).state_dict()
    one = learner(volumes, config, initial_state=state | {"loss.discriminator.x": torch.zeros(1)})
    for name, tensor in one.net.state_dict().items():
        assert tensor.equal(state[name]), name
    assert one.averaged.quantize.embedding.weight.equal(state["quantize.embedding.weight"])
    with pytest.raises(ModelError, match="linear_encoder"):
        learner(volumes, CONFIG, initial_state=state)
