"""The model directory: it comes back as it was, and says what is wrong with it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_model import (
    DENOISER,
    HIGH_PASS,
    NO_RESPONSE,
    RESPONSE,
    blocks,
    make_bold,
    make_model,
    make_run,
    perturb,
)

from fmrisynth.errors import ModelError
from fmrisynth.model.info import read_info
from fmrisynth.model.model import PARTS, Model
from fmrisynth.model.skill import Skill
from fmrisynth.preprocess.carrier import split
from fmrisynth.synthesis.synthesiser import Synthesiser


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "model"
    make_model(wildness=0.05).save(directory)
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def synthesis(model, seed=1):
    maker = Synthesiser(model, model.info.config.sampling)
    events = blocks("hand", "foot")
    carrier, _ = split(make_bold(20), HIGH_PASS)
    return maker.synthesise(
        make_run(n_volumes=20), carrier, carrier.noise_sd, events, seed, participant=0
    )


def change_json(directory, change):
    path = directory / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(directory, *words):
    with pytest.raises(ModelError) as error:
        Model.load(directory)
    for word in words:
        assert word in str(error.value)


def test_a_loaded_model_reads_the_modes_of_its_noise(tmp_path):
    model = make_model(replace(DENOISER, mode_width=8), wildness=0.05)
    perturb(model.denoiser.mode_head, 0.3)
    silent = make_model(DENOISER, wildness=0.05)
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert np.array_equal(synthesis(model), synthesis(loaded))
    loaded.denoiser.mode_gate.zero_()
    assert np.array_equal(synthesis(silent), synthesis(loaded))
    assert not np.array_equal(synthesis(model), synthesis(loaded))


@pytest.mark.parametrize("noise", ["coloured", "white"])
@pytest.mark.parametrize(
    "response", [RESPONSE, replace(RESPONSE, kind="glm"), NO_RESPONSE], ids=lambda r: r.kind
)
def test_a_loaded_model_makes_the_same(tmp_path, noise, response):
    model = make_model(replace(DENOISER, noise=noise), response, wildness=0.05)
    model.denoiser.gate.copy_(torch.linspace(1, 0.5, len(model.denoiser.gate)))
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert np.array_equal(synthesis(model), synthesis(loaded))
    assert loaded.info.config == model.info.config
    assert loaded.info.vocabulary == model.info.vocabulary
    assert loaded.info.split == model.info.split
    assert loaded.grid.shape == model.grid.shape
    assert np.array_equal(loaded.grid.mask, model.grid.mask)
    assert np.array_equal(loaded.grid.affine, model.grid.affine)
    assert not loaded.denoiser.training


def test_the_directory_is_whole_and_nothing_lies_beside_it(saved):
    names = {p.name for p in saved.iterdir()}
    assert names == {"config.json", "mask.nii.gz", "README.md"} | {
        f"{name}.safetensors" for name in PARTS
    }
    assert [p.name for p in saved.parent.iterdir()] == ["model"]
    card = (saved / "README.md").read_text()
    for word in ("not measured data", "motor: hand", "2 participants; 1 were held out", "03"):
        assert word in card
    assert str(saved.parent) not in (saved / "config.json").read_text()


def test_the_directory_has_the_skill_that_was_measured(tmp_path):
    model = make_model()
    model.skill = (
        Skill(0.25, "response", 0.125, 0.1, 0.15),
        Skill(1.3, "backbone", -0.5, float("nan"), float("nan")),
    )
    model.save(tmp_path / "model")
    lines = (tmp_path / "model" / "skill.tsv").read_text().splitlines()
    assert [line.split("\t") for line in lines] == [
        ["theta", "part", "gain", "ci_low", "ci_high"],
        ["0.2500", "response", "0.125000", "0.100000", "0.150000"],
        ["1.3000", "backbone", "-0.500000", "n/a", "n/a"],
    ]


def test_the_card_says_when_no_participant_was_held_out(tmp_path):
    model = make_model()
    model.info = replace(model.info, split=replace(model.info.split, held_out=()))
    model.save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "nothing it generates can be checked against unseen participants" in card


def test_the_digest_names_the_weights(saved, copied, tmp_path):
    digest = read_info(saved).digest
    assert digest
    assert read_info(copied).digest == digest
    make_model(wildness=0.06).save(tmp_path / "other")
    assert read_info(tmp_path / "other").digest != digest


@pytest.mark.parametrize("name", PARTS)
def test_altered_weights_are_refused(copied, name):
    path = copied / f"{name}.safetensors"
    tensors = load_file(path)
    for value in tensors.values():
        value.flatten()[:1].logical_not_() if value.dtype == torch.bool else value.add_(1)
    save_file(tensors, path)
    refused(copied, str(path), "SHA-256")


@pytest.mark.parametrize("name", PARTS)
def test_truncated_weights_are_refused(copied, name):
    path = copied / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    refused(copied, str(path))


@pytest.mark.parametrize("name", PARTS)
def test_missing_weights_are_refused(copied, name):
    (copied / f"{name}.safetensors").unlink()
    refused(copied, f"{name}.safetensors", "does not exist")


def test_unexpected_tensors_are_refused(copied):
    path = copied / "denoiser.safetensors"
    save_file(load_file(path) | {"stranger": torch.zeros(1)}, path)
    refused(copied, str(path), "unexpected stranger")


def test_weights_of_another_configuration_are_refused(copied):
    def widen(content):
        content["config"]["denoiser"]["backbone"]["widths"] = [8, 24]

    change_json(copied, widen)
    refused(copied, "denoiser.safetensors", "expected (24")


@pytest.mark.parametrize("found", [0, 1, 2, 3, "3", None])
def test_another_format_is_refused(copied, found):
    change_json(copied, lambda c: c.update(format=found))
    refused(copied, str(copied / "config.json"), repr(found), "format 7", "train the model again")


@pytest.mark.parametrize(
    "key", ["config", "vocabulary", "split", "scale", "space", "grid", "provenance", "hashes"]
)
def test_a_missing_part_of_the_description_is_named(copied, key):
    change_json(copied, lambda c: c.pop(key))
    refused(copied, str(copied / "config.json"), key)


def _set(*path_and_value):
    *path, last, value = path_and_value

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("config", "denoiser", "colour", 1),
        _set("config", "denoiser", "n_frames", "8"),
        _set("split", "training", 5),
        _set("scale", None),
        _set("scale", "wide"),
        _set("vocabulary", "trial_types", [["motor"]]),
        _set("vocabulary", {}),
        _set("grid", {}),
        _set("grid", "shape", [16, 16]),
        _set("grid", "affine", [[1, 0], [0, 1]]),
        _set("hashes", []),
        _set("hashes", {}),
    ],
)
def test_damaged_descriptions_are_refused(copied, change):
    change_json(copied, change)
    refused(copied, str(copied))


def test_text_that_is_no_json_is_refused(copied):
    (copied / "config.json").write_text("{")
    refused(copied, str(copied / "config.json"))
    (copied / "config.json").unlink()
    refused(copied, str(copied / "config.json"), "does not exist")


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_a_damaged_mask_is_refused(copied, damage):
    path = copied / "mask.nii.gz"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    else:
        path.write_bytes(b"not an image")
    refused(copied, str(path))


def test_saving_over_an_unfinished_attempt(tmp_path):
    left = tmp_path / ".model.writing"
    left.mkdir()
    (left / "junk").write_text("x")
    make_model().save(tmp_path / "model")
    Model.load(tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
