"""The training loop: budget, schedule, averaging, and resuming to the same result, bit by bit."""

import csv
import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from support.states import assert_same
from support.tiny_model import perturb
from tensorboardX.proto.event_pb2 import Event

import fmrisynth
from fmrisynth.errors import FmrisynthError
from fmrisynth.training.loop import (
    Budget,
    Ema,
    TrainingInterrupted,
    cosine_warmup,
    run_learner,
    shard,
    step_generator,
)

PACKAGE_PARENT = Path(fmrisynth.__file__).parents[1]


def cpu():
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


class Regression:
    """A learner with momentum, averaged weights and random data: enough state to lose."""

    finished = False

    def __init__(self, *, stop_at=None, action=None):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(5, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.05)
        self.ema = Ema(self.model, 0.9)
        self.stop_at, self.action, self.steps = stop_at, action, []

    def step(self, step, progress):
        if step == self.stop_at:
            self.action()
        self.steps.append(step)
        self.optimizer.param_groups[0]["lr"] = 0.05 * cosine_warmup(progress, 0.1)
        x = torch.randn(16, 5, generator=step_generator(7, step))
        loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.ema.update(step)
        return {"loss": loss.detach(), "size": float(self.model.weight.norm())}

    def state_dict(self):
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])


class Content(Regression):
    """A learner for which so many steps are enough."""

    @property
    def finished(self):
        return len(self.steps) >= 7


def train(learner, directory, steps=25, **more):
    run_learner(learner, Budget(steps), fabric=cpu(), directory=directory, title="Test", **more)
    return learner


def rows(directory):
    with open(directory / "log.csv", newline="") as stream:
        return list(csv.DictReader(stream))


# Budget, schedule, averaging, randomness


def test_progress_is_the_larger_share():
    assert [Budget(10).progress(step, 1e9) for step in (0, 5, 10, 20)] == [0, 0.5, 1, 1]
    budget = Budget(100, 60.0)
    assert budget.progress(10, 30.0) == 0.5
    assert budget.progress(80, 30.0) == 0.8
    assert budget.progress(0, 61.0) == 1


def test_the_learning_rate_warms_up_and_falls_to_zero():
    grid = np.linspace(0, 1, 201)
    values = np.array([cosine_warmup(p, 0.1) for p in grid])
    assert values.max() == pytest.approx(1, abs=1e-6)
    assert grid[values.argmax()] == pytest.approx(0.1, abs=0.006)
    assert (np.diff(values[grid < 0.1]) > 0).all()
    assert (np.diff(values[grid > 0.1]) < 0).all()
    assert values[0] > 0
    assert values[-1] == pytest.approx(0, abs=1e-9)
    assert cosine_warmup(0.55, 0.1) == pytest.approx(0.5)
    assert cosine_warmup(0.0, 0.0) == 1


def test_the_average_follows_its_equation():
    module = torch.nn.Linear(2, 1)
    ema = Ema(module, 0.6)
    expected = module.weight.detach().clone()
    for step in range(30):
        perturb(module, 0.5, seed=step)
        ema.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach()
        torch.testing.assert_close(ema.module.weight, expected)
    assert not ema.module.weight.requires_grad


def test_the_average_copies_buffers():
    module = torch.nn.BatchNorm1d(3)
    ema = Ema(module, 0.9)
    module.running_mean.fill_(4.0)
    ema.update(0)
    assert ema.module.running_mean.tolist() == [4.0] * 3


def test_random_numbers_depend_on_seed_step_and_index_alone():
    def draw(*key):
        return torch.rand(4, generator=step_generator(*key)).tolist()

    first = draw(3, 5, 2)
    torch.manual_seed(99)
    draw(1, 1, 1)
    assert draw(3, 5, 2) == first
    keys = [(s, t, i) for s in range(3) for t in range(5) for i in range(5)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_processes_share_a_global_batch():
    def parts(batch, world):
        return [
            list(shard(batch, SimpleNamespace(world_size=world, global_rank=rank)))
            for rank in range(world)
        ]

    assert [i for part in parts(12, 3) for i in part] == list(range(12))
    assert parts(12, 1) == [list(range(12))]
    with pytest.raises(FmrisynthError, match="5 cannot be shared by 2"):
        parts(5, 2)


# The loop


def test_a_training_ends_with_its_budget(tmp_path):
    learner = train(Regression(), tmp_path / "a")
    assert learner.steps == list(range(25))
    found = rows(tmp_path / "a")
    assert [int(row["step"]) for row in found] == [10, 20, 25]
    assert float(found[-1]["loss"]) < float(found[0]["loss"])
    assert (tmp_path / "a" / "curves.png").read_bytes().startswith(b"\x89PNG")
    again = train(Regression(), tmp_path / "a")  # nothing left to do
    assert again.steps == []
    assert_same(again.state_dict(), learner.state_dict())


def test_a_learner_that_has_finished_ends_the_training_before_its_budget(tmp_path):
    assert train(Content(), tmp_path).steps == list(range(7))
    assert len(rows(tmp_path)) == 1


def test_a_wall_clock_budget_ends_the_training(tmp_path):
    learner = Regression()
    run_learner(learner, Budget(10**9, 1.5), fabric=cpu(), directory=tmp_path, title="Test")
    assert 0 < len(learner.steps) < 10**6
    assert learner.optimizer.param_groups[0]["lr"] < 0.02  # the schedule fits the time


@pytest.mark.parametrize("stop", [1, 9, 10, 17, 24])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_the_training_and_it_goes_on_to_the_same_result(tmp_path, stop, number):
    whole = train(Regression(), tmp_path / "whole")
    before = signal.getsignal(number)
    halted = Regression(stop_at=stop, action=lambda: os.kill(os.getpid(), number))
    with pytest.raises(TrainingInterrupted, match=number.name) as error:
        train(halted, tmp_path / "broken")
    assert str(tmp_path / "broken" / "state.pt") in str(error.value)
    assert signal.getsignal(number) == before
    resumed = train(Regression(), tmp_path / "broken")
    assert halted.steps + resumed.steps == list(range(25))
    assert_same(resumed.state_dict(), whole.state_dict())


def test_a_torn_row_of_the_log_is_dropped(tmp_path):
    train(Regression(), tmp_path, steps=20)
    whole = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(whole + "25,0.1")
    train(Regression(), tmp_path, steps=20)
    assert (tmp_path / "log.csv").read_text() == whole


def test_tensorboard_reads_the_same_losses(tmp_path):
    train(Regression(), tmp_path)
    assert logged(tmp_path) == pytest.approx(
        [float(row["loss"]) for row in rows(tmp_path)], rel=1e-5
    )


def logged(folder):
    """Losses that TensorBoard shows: what a later start's mark drops is left out."""
    shown = {}
    for path in sorted(
        (folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns
    ):
        content, position = path.read_bytes(), 0
        while position < len(content):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", content, position)
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += 16 + length
            if event.HasField("session_log"):
                shown = {step: loss for step, loss in shown.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "loss":
                    shown[event.step] = value.simple_value
    return [shown[step] for step in sorted(shown)]


@pytest.mark.parametrize("stop", [0, 3, 12, 23])
def test_a_crash_loses_only_what_came_after_the_last_checkpoint(tmp_path, stop):
    def crash():
        raise RuntimeError("power cut")

    whole = train(Regression(), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        train(Regression(stop_at=stop, action=crash), tmp_path / "broken", checkpoint_seconds=0)
    resumed = train(Regression(), tmp_path / "broken")
    assert resumed.steps == list(range(stop, 25))
    assert_same(resumed.state_dict(), whole.state_dict())
    assert [int(row["step"]) for row in rows(tmp_path / "broken")][-1] == 25


def test_rows_past_the_last_checkpoint_leave_the_log(tmp_path):
    whole = train(Regression(), tmp_path / "whole", steps=40)
    halted = Regression(stop_at=11, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingInterrupted):
        train(halted, tmp_path / "broken", steps=40)
    with open(tmp_path / "broken" / "log.csv", "a") as stream:
        stream.write("20,1.0,9,9\n30,2.0")  # the last one torn by the crash
    resumed = train(Regression(), tmp_path / "broken", steps=40)
    found = [int(row["step"]) for row in rows(tmp_path / "broken")]
    assert found == sorted(set(found))
    assert found[0] == 10
    assert found[-1] == 40
    assert "9" not in {row["loss"] for row in rows(tmp_path / "broken")}
    assert logged(tmp_path / "broken") == pytest.approx(
        [float(row["loss"]) for row in rows(tmp_path / "broken")], rel=1e-5
    )
    assert_same(resumed.state_dict(), whole.state_dict())


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_loop import Regression, cpu
from fmrisynth.training.loop import Budget, TrainingInterrupted, run_learner

class Slow(Regression):
    def step(self, step, progress):
        print(step, flush=True)
        time.sleep(0.01)
        return super().step(step, progress)

try:
    run_learner(Slow(), Budget(60), fabric=cpu(), directory=Path(sys.argv[2]), title="Test",
                checkpoint_seconds=0.03)
except TrainingInterrupted:
    sys.exit(3)
"""


def start(directory):
    folders = (PACKAGE_PARENT, Path(__file__).parents[1])  # the package, and `support`
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, folders)), OMP_NUM_THREADS="1")
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(directory)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
    )


@pytest.mark.slow
def test_a_process_killed_at_random_moments_ends_as_an_unbroken_one(tmp_path):
    whole = train(Regression(), tmp_path / "whole", steps=60)
    chance = random.Random(os.environ.get("PYTEST_SEED", "0"))
    last = 0
    for number, code in ((signal.SIGTERM, 3), (signal.SIGKILL, -9), (signal.SIGUSR1, 3)):
        process = start(tmp_path / "broken")
        stop = last + chance.randint(2, 14)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= stop:
                break
        process.send_signal(number)
        seen = [int(line) for line in process.stdout]
        assert process.wait() == code
        last = max([stop, *seen])
        assert last < 58
    resumed = train(Regression(), tmp_path / "broken", steps=60)
    assert 0 < len(resumed.steps) < 60
    assert_same(resumed.state_dict(), whole.state_dict())
    assert not list((tmp_path / "broken").glob("*.tmp"))
