"""Weights and JSON on disk come back or are refused; nothing is executed."""

import os
import pickle
import stat

import pytest
import torch

from fmrisynth.errors import FmrisynthError, ModelError
from fmrisynth.model.weights import (
    hash_files,
    hash_json,
    load_tensors,
    load_weights,
    read_json,
    save_tensors,
    save_weights,
    write_json,
)
from fmrisynth.training.state import read_training_state


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def network(width=3):
    module = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.BatchNorm1d(width))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def test_weights_come_back(tmp_path):
    module, other = network(), network()
    save_weights(tmp_path / "w.safetensors", module)
    load_weights(tmp_path / "w.safetensors", other)
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_tensors_of_every_kind_come_back(tmp_path):
    base = torch.arange(6.0)
    tensors = {
        "view": base[::2],
        "whole": base,
        "transposed": base.view(2, 3).T,
        "half": base.half(),
        "flag": base > 2,
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
    }
    save_tensors(tmp_path / "t.safetensors", tensors)
    found = load_tensors(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def _drop(tensors):
    tensors.pop("0.bias")


def _add(tensors):
    tensors["0.extra"] = torch.zeros(2)


def _reshape(tensors):
    tensors["0.weight"] = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "missing 0.bias"),
        (_add, "unexpected 0.extra"),
        (_reshape, r"0.weight is \(4, 2\), expected \(3, 2\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    module, path = network(), tmp_path / "w.safetensors"
    tensors = dict(module.state_dict())
    change(tensors)
    save_tensors(path, tensors)
    before = {n: v.clone() for n, v in module.state_dict().items()}
    with pytest.raises(ModelError, match=message) as error:
        load_weights(path, module)
    assert str(path) in str(error.value)
    assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "w.safetensors"
    save_weights(path, network())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"w\.safetensors"):
        load_weights(path, network())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_tensors(tmp_path / "none.safetensors")


@pytest.mark.parametrize("writer", [pickle.dump, torch.save])
def test_a_pickle_is_refused_unopened(tmp_path, writer):
    path, trap = tmp_path / "w.safetensors", tmp_path / "sprung"
    with open(path, "wb") as stream:
        writer({"0.weight": Trap(trap)}, stream)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_tensors(path)
    with pytest.raises(ModelError, match="not a readable training state"):
        read_training_state(path)
    assert not trap.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, network())
    before = path.read_bytes()

    def full(target, content):
        with open(target, "wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(FmrisynthError, match="No space left"):
        save_weights(path, network())
    assert path.read_bytes() == before
    with pytest.raises(FmrisynthError):
        save_weights(tmp_path / "new.safetensors", network())
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_weights_may_be_read_by_those_who_may_read_the_folder(tmp_path):
    """A model is trained by one account and used by others, as in a container."""
    mask = os.umask(0o022)
    try:
        save_weights(tmp_path / "w.safetensors", network())
        write_json(tmp_path / "c.json", {})
    finally:
        os.umask(mask)
    for name in ("w.safetensors", "c.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644, name


def test_json_comes_back(tmp_path):
    content = {"a": [1, 2.5, None], "b": {"ä": True}}
    write_json(tmp_path / "c.json", content)
    assert read_json(tmp_path / "c.json") == content


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"', "\xff"])
def test_damaged_json_is_refused(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"c\.json"):
        read_json(path)
    with pytest.raises(ModelError, match=r"none\.json"):
        read_json(tmp_path / "none.json")


def test_hashes_depend_on_content_and_nothing_else(tmp_path):
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x" * 3_000_000)
    other.write_bytes(b"x" * 3_000_000)
    assert hash_files([one]) == hash_files([other])
    assert hash_files([one]) != hash_files([one, other])
    other.write_bytes(b"x" * 2_999_999 + b"y")
    assert hash_files([one]) != hash_files([other])
