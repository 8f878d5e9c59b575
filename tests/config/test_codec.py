"""Configurations: through JSON and back, strictly; overrides from the command line."""

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Literal

import pytest

from fmrisynth.config.codec import from_json, override, to_json
from fmrisynth.config.model import ModelConfig, SamplingConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.errors import ModelError, UsageError


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    rate: float = 0.5
    count: int = 3
    on: bool = True
    limit: float | None = None
    name: str = "x"
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count is {self.count}; expected at least 0")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json(name):
    config = PRESETS[name]
    text = json.dumps(to_json(config))
    again = from_json(ModelConfig, json.loads(text), "config.json")
    assert again == config
    assert to_json(again) == json.loads(text)


def leaves(config, prefix=""):
    """Dotted names and values of all settings."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_setting_of_a_preset_can_be_given_on_the_command_line(name):
    config = PRESETS[name]
    for dotted, value in leaves(config):
        text = value if isinstance(value, str) else json.dumps(value)
        assert override(config, {dotted: text}) == config, dotted


@pytest.mark.parametrize(
    "value",
    [
        Outer(),
        Outer(rate=2, limit=1.5, on=False, inner=Inner((), "b")),
        Outer(name="ä'\"", inner=Inner((5,))),
    ],
)
def test_round_trip(value):
    again = from_json(Outer, json.loads(json.dumps(to_json(value))), "here")
    assert again == value
    assert isinstance(again.inner.sizes, tuple)
    assert isinstance(again.rate, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, r"unknown settings \['colour'\]"),
        ({"rate": "fast"}, "rate is 'fast', expected float"),
        ({"count": 2.5}, r"count is 2.5, expected int"),
        ({"count": True}, "count is True, expected int"),
        ({"rate": True}, "rate is True, expected float"),
        ({"on": 1}, "on is 1, expected bool"),
        ({"name": None}, "name is None, expected str"),
        ({"limit": "none"}, "limit is 'none'"),
        ({"inner": 3}, "inner is 3, expected an object"),
        ({"inner": {"sizes": [1], "kind": "c"}}, r"kind is 'c', expected one of \['a', 'b'\]"),
        ({"inner": {"sizes": 1, "kind": "a"}}, "sizes is 1, expected a list"),
        ({"inner": {"sizes": ["1"], "kind": "a"}}, "sizes is '1', expected int"),
        ({"inner": {"sizes": [1]}}, r"missing settings \['kind'\]"),
        ({"count": -1}, "count is -1; expected at least 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    content = asdict(Outer()) | change
    with pytest.raises(ModelError, match=message) as error:
        from_json(Outer, json.loads(json.dumps(content)), "model/config.json")
    assert "model/config.json" in str(error.value)


def test_models_of_before_have_a_new_setting_by_default():
    content = to_json(SamplingConfig(physiology=False))
    assert not from_json(SamplingConfig, content, "config.json").physiology
    del content["physiology"]
    assert from_json(SamplingConfig, content, "config.json") == SamplingConfig()
    content = to_json(PRESETS["demo"])
    assert content["denoiser"]["backbone"].pop("stem") == 1
    assert from_json(ModelConfig, content, "config.json") == PRESETS["demo"]


def test_missing_settings_are_refused():
    content = to_json(PRESETS["demo"])
    del content["denoiser"]["backbone"]["widths"]
    with pytest.raises(ModelError, match=r"denoiser: backbone.*\['widths'\]"):
        from_json(ModelConfig, content, "config.json")
    with pytest.raises(ModelError, match="expected an object"):
        from_json(ModelConfig, [], "config.json")


def test_overrides_change_what_they_name_and_no_more():
    config = PRESETS["demo"]
    changed = override(
        config,
        {
            "response.kind": "none",
            "denoiser.noise": "white",
            "denoiser.schedule.kind": "scaled_linear",
            "denoiser.backbone.widths": "[32, 64]",
            "preprocess.voxel_size": "null",
            "diffusion_steps": "7",
        },
    )
    expected = replace(
        config,
        diffusion_steps=7,
        preprocess=replace(config.preprocess, voxel_size=None),
        response=replace(config.response, kind="none"),
        denoiser=replace(
            config.denoiser,
            noise="white",
            schedule=replace(config.denoiser.schedule, kind="scaled_linear"),
            backbone=replace(config.denoiser.backbone, widths=(32, 64)),
        ),
    )
    assert changed == expected
    assert override(config, {}) == config


@pytest.mark.parametrize("text", [".25", "0.25", "+.25", "25e-2", "2.5E-1"])
def test_numbers_are_read_as_people_write_them(text):
    assert override(PRESETS["demo"], {"held_out_share": text}).held_out_share == 0.25


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("held_out_share", "nan", "'nan', expected float"),
        ("colour", "1", "no setting 'colour'; expected one of .*denoiser"),
        ("denoiser.colour", "1", "no setting 'colour'; expected one of n_frames"),
        ("denoiser.n_frames.x", "1", "n_frames is a single value"),
        ("denoiser.n_frames", "many", "'many', expected int"),
        ("noise_level", "maybe", "'maybe', expected bool"),
        ("denoiser.backbone.widths", "3", "expected a list"),
        ("denoiser", "{}", "missing settings"),
    ],
)
def test_wrong_overrides_say_what_is_expected(name, value, message):
    with pytest.raises(UsageError, match=message) as error:
        override(PRESETS["demo"], {name: value})
    assert f"--set {name}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("denoiser.prediction", "x0", "expected v or epsilon"),
        ("denoiser.noise", "pink", "expected coloured or white"),
        ("denoiser.noise_modes", "-1", "expected 0 or more"),
        ("denoiser.noise_participant_rank", "-1", "expected 0 or more"),
        ("response.individual_fields", "-1", "expected at least 0"),
        ("denoiser.schedule.kind", "cosine", "expected angular, linear or scaled_linear"),
        ("response.kind", "linear", "expected network, glm or none"),
        ("response.rank", "0", "expected at least 1"),
        ("diffusion_training.validation_share", "1", "expected 0 or more, under 1"),
        ("diffusion_training.regression_share", "-0.1", "expected 0 or more, under 1"),
        ("autoencoder.norm_groups", "7", "norm_groups=7 does not divide"),
    ],
)
def test_settings_check_their_values(name, value, message):
    with pytest.raises(UsageError, match=message):
        override(PRESETS["demo"], {name: value})


def test_settings_that_are_right_together_may_be_given_in_any_order():
    levels = {
        "denoiser.backbone.widths": "[32, 64, 96]",
        "denoiser.backbone.blocks": "[1, 1, 2]",
        "denoiser.backbone.head_width": "16",
    }
    for assignments in (levels, dict(reversed(levels.items()))):
        backbone = override(PRESETS["demo"], assignments).denoiser.backbone
        assert (backbone.widths, backbone.blocks) == ((32, 64, 96), (1, 1, 2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("denoiser.backbone.head_width", "50"),
        ("denoiser.backbone.architecture", "mlp"),
        ("preprocess.normalisation", "zscore"),
        ("denoiser.n_frames", "0"),
        ("denoiser.backbone.blocks", "[1]"),
        ("held_out_share", "1.5"),
        ("sampling.sampler", "magic"),
        ("sampling.steps", "0"),
        ("diffusion_steps", "0"),
        ("diffusion_training.batch_size", "0"),
    ],
)
def test_impossible_values_are_refused_before_any_work(name, value):
    """Not after minutes of reading and training."""
    with pytest.raises(UsageError):
        override(PRESETS["demo"], {name: value})


FORMER = {  # settings of version 0.1 with their sections → present name
    ("denoiser", "noise_people"): "noise_participant_rank",
    ("sampling", "observation_noise"): "decoder_noise",
}


def test_settings_of_version_0_1_are_accepted_with_a_warning(caplog):
    for former, present in FORMER.items():
        value = "false" if present == "decoder_noise" else "0"
        now = ".".join((*former[:-1], present))
        caplog.clear()
        config = override(ModelConfig(), {".".join(former): value})
        assert config == override(ModelConfig(), {now: value}) != ModelConfig()
        assert present in caplog.text
