"""Hostile model directories at the command line: each with its message, and nothing is executed."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.bids_tree import make_bids
from support.tiny_model import make_model

from fmrisynth.model.weights import hash_files

pytestmark = pytest.mark.slow

Damage = Callable[[Path], object]
DENOISER = "denoiser.safetensors"


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = str(witness)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_execute, (self.witness,))


def _execute(witness: str) -> dict[str, Any]:
    Path(witness).write_text("executed")
    return {}


def config(*path_and_value: Any) -> Damage:
    """Change one entry of config.json."""
    *path, last, value = path_and_value

    def damage(model: Path) -> None:
        content = json.loads((model / "config.json").read_text())
        place = content
        for key in path:
            place = place[key]
        place[last] = value
        (model / "config.json").write_text(json.dumps(content))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object], name: str = DENOISER) -> Damage:
    """Change the tensors of a file, and its hash too: a file made so on purpose."""

    def damage(model: Path) -> None:
        content = load_file(model / name)
        change(content)
        save_file(content, model / name)
        config("hashes", name, hash_files([model / name]))(model)

    return damage


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Change a file's bytes."""

    def damage(model: Path) -> None:
        (model / name).write_bytes(change((model / name).read_bytes()))

    return damage


def pickled(name: str, dump: Callable[[Any], bytes] = pickle.dumps) -> Damage:
    """Put a pickle that executes something in a file's place, with the right hash."""

    def damage(model: Path) -> None:
        (model / name).write_bytes(dump(Payload(model.parent / "witness")))
        if name in json.loads((model / "config.json").read_bytes() or "{}").get("hashes", {}):
            config("hashes", name, hash_files([model / name]))(model)

    return damage


def torch_dump(payload: Any) -> bytes:
    """As `torch.save` writes it, in its zip archive."""
    import io

    stream = io.BytesIO()
    torch.save({"state": payload}, stream)
    return stream.getvalue()


def pickled_config(model: Path) -> None:
    (model / "config.json").write_bytes(pickle.dumps(Payload(model.parent / "witness")))


def poisoned(content: dict[str, torch.Tensor]) -> None:
    content[next(n for n, t in content.items() if t.is_floating_point())].flatten()[0] = torch.nan


def empty_mask(model: Path) -> None:
    mask = nib.load(model / "mask.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(mask.shape, "u1"), mask.affine), model / "mask.nii.gz")


def smaller_mask(model: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), "u1"), np.eye(4)), model / "mask.nii.gz")


WIDTHS = ("config", "denoiser", "backbone", "widths")
CASES: dict[str, tuple[Damage, str]] = {
    "another format": (config("format", 1), "format 1.*reads format 7"),
    "no format": (config("format", None), "format None"),
    "a missing part": (lambda m: config("x", 1)(m) or _without(m, "split"), "lacks split"),
    "another version's setting": (config("config", "denoiser", "colour", 1), "unknown settings"),
    "a setting of another kind": (config("config", "denoiser", "n_frames", "8"), "expected int"),
    "no settings": (config("config", None), "expected an object of settings"),
    "impossible widths": (config(*WIDTHS, [10**10, 10**10]), "cannot be built"),
    "no widths": (config(*WIDTHS, []), "config.json"),
    "negative widths": (config(*WIDTHS, [-8, 16]), "config.json"),
    "widths of another model": (config(*WIDTHS, [8, 24]), "denoiser.safetensors does not fit"),
    "scale 0": (config("scale", 0), "scale is 0"),
    "scale NaN": (config("scale", float("nan")), "scale is nan"),
    "scale a text": (config("scale", "wide"), "config.json is damaged"),
    "scale of 400 digits": (config("scale", 10**400), "config.json is damaged"),
    "provenance a list": (config("provenance", []), "config.json is damaged"),
    "space a number": (config("space", 4), "space is no text"),
    "grid of two dimensions": (config("grid", "shape", [16, 16]), "config.json is damaged"),
    "gigantic grid": (config("grid", "shape", [10**9] * 3), "config.json says"),
    "affine that is none": (config("grid", "affine", [[1]]), "no 4 × 4 matrix"),
    "vocabulary of numbers": (config("vocabulary", 7), "config.json is damaged"),
    "hashes that are none": (config("hashes", []), "config.json is damaged"),
    "config.json that is no JSON": (bytes_of("config.json", lambda b: b[:-9]), "readable JSON"),
    "config.json of 100,000 brackets": (
        bytes_of("config.json", lambda b: b"[" * 100_000), "readable JSON"
    ),
    "config.json that is a list": (bytes_of("config.json", lambda b: b"[]"), "holds a list"),
    "config.json in UTF-16": (
        bytes_of("config.json", lambda b: b.decode().encode("utf-16")), "readable JSON"
    ),
    "config.json missing": (lambda m: (m / "config.json").unlink(), "config.json does not exist"),
    "config.json a pickle": (pickled_config, "readable JSON"),
    "wrong hash": (config("hashes", DENOISER, "0" * 64), "SHA-256.*expects 000000000000"),
    "no hash": (config("hashes", {}), "SHA-256"),
    "truncated weights": (bytes_of(DENOISER, lambda b: b[:-9]), "not a whole safetensors file"),
    "weights of 0 bytes": (bytes_of(DENOISER, lambda b: b""), "not a whole safetensors file"),
    "weights with a gigantic header": (
        bytes_of(DENOISER, lambda b: b"\xff" * 7 + b"\x7f" + b[8:]), "not a whole safetensors file"
    ),
    "weights with a flipped bit": (
        bytes_of(DENOISER, lambda b: b[:-1] + bytes([b[-1] ^ 1])), "SHA-256"
    ),
    "weights missing": (lambda m: (m / DENOISER).unlink(), "does not exist"),
    "weights a folder": (
        lambda m: (m / DENOISER).unlink() or (m / DENOISER).mkdir(), "does not exist"
    ),
    "an unexpected tensor": (tensors(lambda t: t.update(x=torch.zeros(1))), "unexpected x"),
    "a missing tensor": (tensors(lambda t: t.pop(sorted(t)[0])), "missing "),
    "a tensor of another shape": (
        tensors(lambda t: t.update({sorted(t)[0]: torch.zeros(3, 1, 4)})), r"is \(3, 1, 4\)"
    ),
    "NaN in the weights": (tensors(poisoned), "holds NaN or Inf"),
    "weights a pickle": (pickled(DENOISER), "not a whole safetensors file"),
    "weights a torch archive": (pickled(DENOISER, torch_dump), "not a whole safetensors file"),
    "mask missing": (lambda m: (m / "mask.nii.gz").unlink(), "not a readable mask"),
    "mask truncated": (bytes_of("mask.nii.gz", lambda b: b[:60]), "not a readable mask"),
    "mask a pickle": (pickled("mask.nii.gz"), "not a readable mask"),
    "mask empty": (empty_mask, "mask.nii.gz is empty"),
    "mask of another model": (smaller_mask, "has shape"),
    "a file in place of the folder": (
        lambda m: shutil.rmtree(m) or m.write_text("model"), "readable JSON"
    ),
}  # fmt: skip


def _without(model: Path, key: str) -> None:
    content = json.loads((model / "config.json").read_text())
    del content[key]
    (model / "config.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("template") / "model"
    make_model().save(directory)
    return directory


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bids(
        tmp_path_factory.mktemp("data") / "bids", participants=("01",), tasks=("motor",)
    )


@pytest.fixture
def call(call: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str]]:
    """Run the participant level in this process; returns exit code and messages."""

    def run(*words: object) -> tuple[int, str]:
        options = ["--device", "cpu", "--precision", "32-true", "--sampling-steps", 1]
        code, _, text = call(*words, *options, validate=True)
        return code, text

    return run


def test_the_model_is_good_before(
    template: Path, bids: Path, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    code, text = call(bids, tmp_path / "out", "participant", "--model", template)
    assert code == 0, text


@pytest.mark.parametrize("name", CASES)
def test_hostile_models(
    name: str, template: Path, bids: Path, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    damage, message = CASES[name]
    model = Path(shutil.copytree(template, tmp_path / "model"))
    damage(model)
    code, text = call(bids, tmp_path / "out", "participant", "--model", model)
    assert code == 65, text
    assert re.search(message, text, re.DOTALL), text
    assert str(model) in text
    assert not (tmp_path / "witness").exists()
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_pickle_in_place_of_a_training_state(
    bids: Path, tmp_path: Path, call: Callable[..., tuple[int, str]]
) -> None:
    """The work directory is read no less carefully: tensors and plain containers alone."""
    words = (
        bids, tmp_path / "out", "participant", "-w", tmp_path / "work", "--train-only",
        "--max-steps", 1, "--set", "denoiser.backbone.widths=[16, 32]",
    )  # fmt: skip
    assert call(*words)[0] == 0
    state = next((tmp_path / "work").glob("diffusion-*/state.pt"))
    shutil.rmtree(tmp_path / "out" / "model")
    state.write_bytes(torch_dump(Payload(tmp_path / "witness")))
    code, text = call(*words)
    assert code == 65
    assert str(state) in text
    assert "delete it" in text
    assert not (tmp_path / "witness").exists()
    state.unlink()
    assert call(*words)[0] == 0
