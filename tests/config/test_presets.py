"""The presets have the published sizes and methods, and each of them learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fmrisynth.config.codec import from_json, override, to_json
from fmrisynth.config.model import ModelConfig
from fmrisynth.config.presets import (
    PAPER_METHOD,
    PRESETS,
    SIZES,
    SYSTEMS,
    preset_notice,
    read_preset,
    with_paper_method,
)
from fmrisynth.errors import UsageError
from fmrisynth.model.denoiser.conditioning import Condition, Vocabulary
from fmrisynth.model.denoiser.denoiser import Denoiser
from fmrisynth.model.denoiser.schedule import training_angles

# preset, options, millions of parameters in the paper
TABLE = [
    ("38m", {}, 38.1),
    ("85m", {}, 85.4),
    ("151m", {}, 151.5),
    ("237m", {}, 236.5),
    ("340m", {}, 340.3),
    ("463m", {}, 462.9),
    ("237m", {"denoiser.backbone.architecture": "cnn"}, 235.0),
    ("237m", {"denoiser.backbone.architecture": "transformer"}, 238.0),
    ("151m", {"denoiser.backbone.cross_attention": "false"}, 110.5),
]


def vocabulary(n_tasks: int = 7, per_task: int = 1) -> Vocabulary:
    tasks = tuple(f"task{i}" for i in range(n_tasks))
    types = tuple((task, f"type{j}") for task in tasks for j in range(per_task))
    return Vocabulary(types, tasks, ("LR", "RL"), (), 28)


# latent voxels of MNI152's brain at 2 mm, folded by 4: maps over them are parameters, too
BRAIN = (20, 24, 20)


def denoiser_of(
    config: ModelConfig, words: Vocabulary, grid: tuple[int, ...], device: str = "meta"
) -> Any:
    with torch.device(device):
        mask = torch.ones(grid, dtype=torch.bool)
        patch, channels = config.autoencoder.factor, config.autoencoder.latent_channels
        return Denoiser(config.denoiser, words, channels, mask, patch)


def count(config: ModelConfig, words: Vocabulary) -> int:
    return sum(p.numel() for p in denoiser_of(config, words, BRAIN).backbone.parameters())


def batch_of(config: ModelConfig, words: Vocabulary, n: int, device: str) -> tuple[Any, Condition]:
    frames, types = config.denoiser.n_frames, len(words.trial_types)
    length, edge = words.longest_history + frames, n * config.autoencoder.factor
    with torch.device(device):
        condition = Condition(
            attributes=torch.ones(2, 3, dtype=torch.int64) * torch.tensor([1, 1, 0]),
            t_r=torch.full((2,), 0.72),
            frames=torch.randn(2, length, types * 3),
            times=torch.arange(length).expand(2, -1) * 0.72,
            valid=torch.ones(2, length, dtype=torch.bool),
            evoked=torch.randn(2, frames, types, 2),
            anatomy=torch.randn(2, 2, edge, edge, edge),
            condition_mask=torch.ones(2),
            anatomy_mask=torch.ones(2),
            mode_sd=torch.zeros(2, 0),
        )
        return torch.randn(2, frames, config.autoencoder.latent_channels, n, n, n), condition


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        found |= inner
    return found


@pytest.mark.parametrize("form", ["scaled", "paper"])
@pytest.mark.parametrize(("size", "options", "millions"), TABLE)
def test_parameter_counts_are_the_papers(
    form: str, size: str, options: dict[str, str], millions: float
) -> None:
    config = override(PRESETS[f"{form}-{size}"], options)
    assert count(config, vocabulary()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_small_lies_between_the_demonstration_and_the_smallest_of_the_paper() -> None:
    demo, small, least = (count(PRESETS[n], vocabulary()) for n in ("demo", "small", "scaled-38m"))
    assert 1.5 * demo < small < least / 2


def test_the_vocabulary_hardly_changes_the_count() -> None:
    config = PRESETS["scaled-38m"]
    all_of_hcp = count(config, vocabulary(per_task=4))  # 28 trial types
    assert abs(all_of_hcp / count(config, vocabulary()) - 1) < 0.01


@pytest.mark.parametrize("form", ["scaled", "paper"])
def test_widths_fit_the_attention_heads(form: str) -> None:
    for size in SIZES:
        backbone = PRESETS[f"{form}-{size}"].denoiser.backbone
        assert list(backbone.widths) == sorted(backbone.widths)
        assert all(width % backbone.head_width == 0 for width in backbone.widths)
        # a narrower trunk cannot carry ε of 20 × 4 channels through, which the paper's has to
        assert form == "scaled" or backbone.widths[0] >= 80


@pytest.mark.parametrize("name", PRESETS)
def test_json_returns_the_preset(name: str) -> None:
    config = PRESETS[name]
    assert from_json(ModelConfig, to_json(config), name) == config


@pytest.mark.parametrize("name", PRESETS)
def test_forward_keeps_the_shape(name: str, request: pytest.FixtureRequest) -> None:
    if PRESETS[name].denoiser.backbone.architecture == "monai":
        request.getfixturevalue("monai")
    config, words = PRESETS[name], vocabulary()
    x, condition = batch_of(config, words, 24, "meta")
    y = denoiser_of(config, words, (24, 24, 24))(x, torch.zeros(2, device="meta"), condition)
    assert y.shape == x.shape


def test_the_papers_method_differs_in_the_named_settings_alone() -> None:
    for size in SIZES:
        scaled = flat(to_json(PRESETS[f"scaled-{size}"]))
        paper = flat(to_json(PRESETS[f"paper-{size}"]))
        # the forms of the autoencoder and of the backbone
        form = {f"autoencoder.{f}" for f in ("patch", "multipliers", "base_width", "linear_path")}
        of_levels = ("stem", "widths", "blocks", "token_width", "head_width")
        form |= {f"denoiser.backbone.{field}" for field in of_levels}
        changed = {k for k in scaled if scaled[k] != paper[k]}
        assert set(PAPER_METHOD) < changed <= set(PAPER_METHOD) | form
        assert (scaled["denoiser.backbone.stem"], paper["denoiser.backbone.stem"]) == (2, 1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_the_paper_method_with_what_it_is_known_for(name: str) -> None:
    paper, system = flat(to_json(PRESETS["paper-237m"])), flat(to_json(PRESETS[name]))
    sizes = {f"denoiser.backbone.{field}" for field in ("widths", "blocks", "head_width")}
    changed = {k for k in paper if paper[k] != system[k]} - sizes
    own = {k for k in SYSTEMS[name] if SYSTEMS[name][k] != PAPER_METHOD.get(k)}
    assert changed == own
    assert "denoiser.backbone.architecture" in changed


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_are_as_large_as_what_they_are_compared_with(
    name: str, request: pytest.FixtureRequest
) -> None:
    if name == "pinaya":
        request.getfixturevalue("monai")
    assert count(PRESETS[name], vocabulary()) / 1e6 == pytest.approx(236.5, rel=0.02)


def test_the_training_budget_is_the_papers() -> None:
    for name, config in PRESETS.items():
        if name in ("demo", "small"):
            continue
        training = config.diffusion_training
        assert (training.learning_rate, training.weight_decay) == (1e-4, 0.01)
        assert (training.batch_size, config.diffusion_steps) == (16, 400_000)
        assert (training.ema_decay, training.condition_dropout) == (0.9999, 0.05)
        assert config.autoencoder.codebook_size == 8192
        assert config.autoencoder_training.adversarial.weight > 0


REDUCED = {
    "denoiser.n_frames": "4",
    "denoiser.backbone.head_width": "32",
    "denoiser.backbone.condition_width": "32",
    "denoiser.backbone.token_width": "48",
}
ABLATIONS = [
    {"denoiser.backbone.architecture": "cnn"},
    {"denoiser.backbone.architecture": "transformer"},
    {"denoiser.backbone.cross_attention": "false"},
    *({key: value} for key, value in PAPER_METHOD.items() if key.startswith("denoiser.")),
    {"denoiser.schedule.kind": "linear"},
]
BASES = {
    form: override(PRESETS[f"{form}-38m"], REDUCED | {"denoiser.backbone.widths": widths})
    for form, widths in (("scaled", "[96, 128]"), ("paper", "[32, 64, 96]"))
}
# the paper's method has its own settings already: those are no ablations of it
CASES = [(form, {}) for form in BASES] + [
    (form, option)
    for option in ABLATIONS
    for form, base in BASES.items()
    if override(base, option) != base
]


def test_every_ablation_is_one_option() -> None:
    assert {next(iter(option)) for _, option in CASES if option} == {
        next(iter(option)) for option in ABLATIONS
    }
    for form, option in CASES:
        base, changed = flat(to_json(BASES[form])), flat(to_json(override(BASES[form], option)))
        assert {name for name in base if base[name] != changed[name]} == set(option)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "option"),
    CASES,
    ids=lambda v: v if isinstance(v, str) else "".join(map("=".join, v.items())),
)
def test_every_ablation_learns(form: str, option: dict[str, str]) -> None:
    """The loss falls by a fifth, and every weight has a gradient."""
    torch.manual_seed(0)
    config, words = override(BASES[form], option), vocabulary(2)
    denoiser = denoiser_of(config, words, (8, 8, 8), "cpu")
    x, condition = batch_of(config, words, 8, "cpu")
    condition.attributes.clamp_(max=2)
    theta = training_angles(config.denoiser.schedule, torch.tensor([0.2, 0.8]))
    target = torch.randn_like(x[:1]).expand_as(x)
    optimizer = torch.optim.Adam(denoiser.parameters(), 2e-3)
    losses = []
    for _ in range(10):  # the first step opens the head, which starts at zero
        optimizer.zero_grad()
        loss = (denoiser(x, theta, condition) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    idle = {
        name
        for name, weight in denoiser.backbone.named_parameters()
        if weight.grad is None or not weight.grad.any()
    }
    assert idle == {"condition.null"}  # stands for a condition that is left out; none is


def test_the_papers_method_of_any_configuration() -> None:
    narrow = override(PRESETS["scaled-38m"], {"denoiser.backbone.widths": "[128, 256]"})
    config = with_paper_method(narrow)
    assert config.denoiser.backbone.widths == (128, 256)
    assert config.preprocess.normalisation == "volume"
    assert config.response.kind == "none"
    assert config.noise_level is False


def test_names_of_version_0_1_are_accepted_and_what_they_meant_is_said() -> None:
    assert read_preset("published-38m") == "paper-38m"
    for name in ("published-38m", "paper-38m"):  # the second is another model than it was
        notice = preset_notice(name)
        assert notice is not None
        assert "paper-38m" in notice
    assert "scaled-38m" in str(preset_notice("paper-38m"))
    for name in ("demo", "small", "scaled-38m"):
        assert read_preset(name) == name
        assert preset_notice(name) is None


def test_a_preset_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(UsageError) as caught:
        read_preset("paper")
    assert all(name in str(caught.value) for name in PRESETS)
