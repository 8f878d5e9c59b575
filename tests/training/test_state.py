"""Training states come back, and damaged or foreign files are refused."""

import pytest
import torch

from fmrisynth.errors import ModelError
from fmrisynth.training.state import read_training_state, write_training_state


def network(width=3):
    module = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.BatchNorm1d(width))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def test_training_states_come_back(tmp_path):
    module = network()
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    state = {"step": 7, "elapsed": 1.5, "learner": {"optimizer": optimizer.state_dict()}}
    write_training_state(tmp_path / "state.pt", state)
    found = read_training_state(tmp_path / "state.pt")
    assert found["step"] == 7
    optimizer.load_state_dict(found["learner"]["optimizer"])
    moment = found["learner"]["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(moment, optimizer.state_dict()["state"][0]["exp_avg"])


def test_no_training_state_is_none(tmp_path):
    assert read_training_state(tmp_path / "state.pt") is None
    (tmp_path / "state.pt").touch()
    assert read_training_state(tmp_path / "state.pt") is None


def test_a_damaged_training_state_says_what_to_do(tmp_path):
    path = tmp_path / "state.pt"
    write_training_state(path, {"step": 1})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="delete it to train from the beginning") as error:
        read_training_state(path)
    assert str(path) in str(error.value)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="not a training state"):
        read_training_state(path)
