"""Learning a model from the command line: where it starts from, and what it says of itself."""

import csv
import json
import pickle
import re
from dataclasses import replace
from importlib.metadata import version

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.bids_tree import make_bids

from fmrisynth.config.autoencoder import VQGANConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.model.autoencoder.vqgan import VQGAN
from fmrisynth.model.model import Model
from fmrisynth.training import learn
from fmrisynth.training.plan import TrainingPlan
from fmrisynth.training.window_noise import WindowNoise

# a published network in small; with a learning rate of 0 it stays as it starts
SMALL = VQGANConfig(base_width=8, norm_groups=4, codebook_size=16, quantizer="gradient")
SETTINGS = {
    "autoencoder.base_width": 8,
    "autoencoder.multipliers": [1, 1, 2],
    "autoencoder.norm_groups": 4,
    "autoencoder.codebook_size": 16,
    "autoencoder.quantizer": "gradient",
    "autoencoder.patch": 1,
    "autoencoder.linear_path": "false",
    "autoencoder.convolutional": "true",
    "autoencoder_training.learning_rate": 0,
    "denoiser.backbone.widths": [16, 32],
    "denoiser.backbone.blocks": [1, 1],
    "denoiser.noise_modes": 4,
}
OPTIONS = (
    *("--train-only", "--max-steps", "2", "--device", "cpu", "--precision", "32-true"),
    *(word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")),
)


def weights(seed):
    torch.manual_seed(seed)
    return {name: 0.1 * torch.randn_like(t) for name, t in VQGAN(SMALL).state_dict().items()}


@pytest.fixture
def train(call, tiny_bids, tmp_path):
    """Train from a checkpoint; exit code, messages, the model's directory."""

    def run(checkpoint=None, name="out"):
        start = () if checkpoint is None else ("--set", f"autoencoder_training.init={checkpoint}")
        out = tmp_path / name
        words = (tiny_bids, out, "participant", "-w", tmp_path / "work", *OPTIONS, *start)
        code, _, messages = call(*words)
        return code, messages, out / "model"

    return run


def folders(tmp_path):
    return {path.name for path in (tmp_path / "work").glob("autoencoder-*")}


@pytest.mark.slow
def test_the_autoencoder_starts_from_a_checkpoint(train, tmp_path):
    """Its weights are the file's, a discriminator in the file does not matter."""
    state, file = weights(1), tmp_path / "kim.safetensors"
    save_file(state | {"loss.discriminator.main.0.weight": torch.zeros(1)}, str(file))
    code, messages, model = train(file)
    assert code == 0, messages
    learned = load_file(model / "autoencoder.safetensors")
    assert learned.keys() == state.keys()
    for name, tensor in learned.items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0, msg=name)
    assert Model.load(model).info.config.autoencoder_training.init == str(file)


@pytest.mark.slow
def test_a_file_of_another_content_trains_anew_and_one_of_another_name_does_not(train, tmp_path):
    for name, seed in (("a.safetensors", 1), ("b.safetensors", 2), ("c.safetensors", 1)):
        save_file(weights(seed), str(tmp_path / name))
    assert train(tmp_path / "a.safetensors", "a")[0] == 0
    first = folders(tmp_path)
    assert train(tmp_path / "c.safetensors", "c")[0] == 0
    assert folders(tmp_path) == first
    assert train(tmp_path / "b.safetensors", "b")[0] == 0
    assert len(folders(tmp_path)) == 2
    one, other = (load_file(tmp_path / n / "model" / "autoencoder.safetensors") for n in "ab")
    assert not one["encoder.conv_in.weight"].equal(other["encoder.conv_in.weight"])


@pytest.mark.slow
def test_a_checkpoint_of_tensors_alone_may_be_torchs_own(train, tmp_path):
    torch.save({"state_dict": weights(1), "epoch": 3}, tmp_path / "kim.ckpt")
    code, messages, model = train(tmp_path / "kim.ckpt")
    assert code == 0, messages
    learned = load_file(model / "autoencoder.safetensors")
    assert learned["encoder.conv_in.weight"].equal(weights(1)["encoder.conv_in.weight"])


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.slow
def test_nothing_of_the_networks_noise_was_fitted_to_those_who_validate_it(train, monkeypatch):
    """Modes explain more of the runs that they were fitted to: a network that adds what the noise
    of others lacks would be right on these, and on nobody else's.
    """
    fitted, used, original = [], [], learn.fit_noise

    def fit_noise(runs, *rest):
        noise = original(runs, *rest)
        fitted.append((noise, set(runs.participants)))
        return noise

    def infer(group, *rest):
        used.append(group)
        return WindowNoise([group] * len(rest[1]), rest[1], group)

    monkeypatch.setattr(learn, "fit_noise", fit_noise)
    monkeypatch.setattr(learn.WindowNoise, "infer", infer)
    code, messages, _ = train()
    assert code == 0, messages
    (_, everybody), (noise, learners) = fitted
    assert learners < everybody
    assert used[0] is noise


def save_pickle(path):
    path.write_bytes(pickle.dumps(Payload(), protocol=2))


def save_payload(path):
    torch.save({"state_dict": weights(1), "callbacks": Payload()}, path)


def save_wider(path):
    wider = VQGAN(replace(SMALL, base_width=16)).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in wider.items()}, str(path))


def save_nan(path):
    save_file(weights(1) | {"quant_conv.bias": torch.full((4,), torch.nan)}, str(path))


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("none.safetensors", lambda path: None, "does not exist"),
        ("none.ckpt", lambda path: None, "does not exist"),
        ("plain.ckpt", save_pickle, "tensors alone.*save its state_dict as .safetensors"),
        ("evil.ckpt", save_payload, "tensors alone.*save its state_dict as .safetensors"),
        ("cut.safetensors", lambda path: path.write_bytes(b"cut"), "not a whole safetensors file"),
        (
            "wide.safetensors",
            save_wider,
            r"has shape \(16.*expected \(8.*autoencoder\..*base_width",
        ),
        ("nan.safetensors", save_nan, "quant_conv.bias holds NaN"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_before_any_work(
    train, tmp_path, capsys, name, save, message
):
    save(tmp_path / name)
    code, messages, model = train(tmp_path / name)
    assert code == 65
    assert f"autoencoder_training.init: {tmp_path / name}" in messages
    assert re.search(message, messages, re.DOTALL), messages
    assert "executed" not in messages + capsys.readouterr().out
    assert not model.exists()
    assert not list((tmp_path / "work").glob("residuals/*"))


@pytest.mark.slow
def test_a_model_says_how_it_was_trained(train):
    code, messages, model = train()
    assert code == 0, messages
    provenance = json.loads((model / "config.json").read_text())["provenance"]
    assert provenance["preset"] == "demo"
    assert (provenance["participants"], provenance["runs"]) == (2, 4)
    assert provenance["steps"] == {"autoencoder": 2, "denoiser": 2}
    stages = ["prepare", "autoencoder", "latents", "response", "noise", "decoder_noise"]
    stages += ["denoiser", "skill"]
    assert list(provenance["seconds"]) == stages
    assert all(seconds >= 0 for seconds in provenance["seconds"].values())
    assert provenance["versions"]["torch"] == version("torch")
    card = (model / "README.md").read_text()
    for stage, seconds in provenance["seconds"].items():
        steps = provenance["steps"].get(stage, "")
        assert f"| {stage.replace('_', ' ')} | {steps} | {seconds:.1f} |" in card
    assert f"torch {version('torch')}" in card


# What each part adds, from the command line

TINY = (
    *("--device", "cpu", "--precision", "32-true", "--nprocs", "1", "--max-steps", "1"),
    *("--sampling-steps", "2", "--set", "preprocess.voxel_size=4"),
    *("--set", "denoiser.backbone.widths=[16, 32]", "--set", "denoiser.backbone.blocks=[1, 1]"),
)


def rows_of(model):
    with open(model / "skill.tsv", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def two_held_out(tmp_path_factory):
    """Five participants, two of which are held out: intervals need two."""
    labels = ("01", "02", "03", "04", "05")
    return make_bids(tmp_path_factory.mktemp("five") / "bids", participants=labels, tasks=("wm",))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"response.kind": "none"},
        {"response.kind": "glm"},
        {"response.kind": "network", "response.steps": "20"},
        {"sampling.backbone": "false"},
        {"noise_level": "false"},
        {"diffusion_training.gate": "false"},
        {"diffusion_training.validation_share": "0"},
        {"denoiser.prediction": "epsilon", "denoiser.noise": "white"},
    ],
    ids=lambda s: ",".join(map("=".join, s.items())) or "default",
)
def test_every_form_trains_and_synthesises(call, two_held_out, tmp_path, settings):
    """With one step of training; the gate lets nothing of it do harm."""
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    out = tmp_path / "out"
    code, _, messages = call(
        two_held_out, out, "participant", "--set", "held_out_share=0.4", *TINY, *words
    )
    assert code == 0, messages
    images = sorted(out.rglob("*_desc-synth_bold.nii.gz"))
    assert len(images) == 5
    for path in images:
        data = nib.load(path).get_fdata(dtype=np.float32)
        assert np.isfinite(data).all()
        assert data.std(3).max() > 0
    rows = rows_of(out / "model")
    assert list(rows[0]) == ["theta", "part", "gain", "ci_low", "ci_high"]
    parts = ["noise level", "response", "noise level + response", "backbone"]
    assert [row["part"] for row in rows[:4]] == parts
    assert len(rows) == 4 * len({row["theta"] for row in rows})
    for row in rows:
        low, gain, high = (float(row[name]) for name in ("ci_low", "gain", "ci_high"))
        assert low <= gain <= high
        if row["part"] == "response" and settings.get("response.kind") == "none":
            assert gain == 0
        if row["part"] == "noise level" and settings.get("noise_level") == "false":
            assert gain == 0
        ungated = {"diffusion_training.gate", "denoiser.noise"}  # zero is no answer to white noise
        if row["part"] == "backbone" and not ungated & settings.keys():
            assert gain > -1e-3


@pytest.mark.slow
def test_the_precision_of_the_networks_does_not_change_the_skill_of_statistics(
    call, two_held_out, tmp_path
):
    """Loss and noise are computed in float32, whatever the networks are."""
    gains = []
    for precision in ("32-true", "bf16-mixed"):
        words = (*TINY, "--precision", precision, "--train-only", "--set", "held_out_share=0.4")
        out = tmp_path / precision
        code, _, messages = call(two_held_out, out, "participant", *words)
        assert code == 0, messages
        gains.append([float(r["gain"]) for r in rows_of(out / "model") if r["part"] != "backbone"])
    assert gains[0] == pytest.approx(gains[1], abs=0.02)
    assert max(map(abs, gains[0])) < 5


@pytest.mark.slow
def test_without_participants_held_out_there_is_no_skill(call, bids_factory, tmp_path):
    out = tmp_path / "out"
    code, _, messages = call(
        bids_factory(participants=("01",)), out, "participant", "--train-only", *TINY
    )
    assert code == 0, messages
    assert not (out / "model" / "skill.tsv").exists()
    assert "no participant was held out that skill could be measured on" in messages


def test_the_folder_of_the_autoencoder_depends_on_its_own_settings_alone(tmp_path):
    config = PRESETS["demo"]
    plan = TrainingPlan(config, "demo", 0, 3, None, 1)
    first = plan.folders(tmp_path, ["key"])
    wider = replace(config, denoiser=replace(config.denoiser, n_frames=8))
    other = replace(plan, config=wider).folders(tmp_path, ["key"])
    assert other.autoencoder == first.autoencoder
    assert other.diffusion != first.diffusion
    sampled = replace(config, sampling=replace(config.sampling, steps=50))
    assert replace(plan, config=sampled).folders(tmp_path, ["key"]) == first
    for changed in (replace(plan, seed=1), replace(plan, max_steps=4)):
        assert changed.folders(tmp_path, ["key"]).autoencoder != first.autoencoder
    assert plan.folders(tmp_path, ["other"]).autoencoder != first.autoencoder
