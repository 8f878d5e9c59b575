"""A call's settings resolve what the user left open, and options come from their fields."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from fmrisynth.config.model import SamplingConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.errors import DataError, UsageError
from fmrisynth.workflow.ending import remove_work_files, report_failures
from fmrisynth.workflow.options import Option, options_of
from fmrisynth.workflow.settings import Settings


@dataclass(frozen=True)
class Two:
    """Hold two options.

    Attributes
    ----------
    plain : int
        Not an option.
    first, second : int
        Number of
        things.
    """

    plain: int = 0
    first: Annotated[int | None, Option("--first", "Group")] = None
    second: Annotated[tuple[int, ...], Option("--second", "Group")] = field(default_factory=tuple)


def test_options_are_the_annotated_fields_with_their_text():
    first, second = options_of(Two)
    assert (first.field, first.kind, first.default) == ("first", int, None)
    assert (second.field, second.kind, second.default) == ("second", tuple[int, ...], ())
    assert first.text == second.text == "Number of things."


def settings(**options) -> Settings:
    return Settings(Path("in"), Path("out"), **options)


def test_places_lie_in_the_output_unless_they_are_named():
    assert settings().model_path == Path("out/model")
    assert settings(model_dir=Path("m")).model_path == Path("m")
    assert settings().work_path == Path("out/work")
    assert settings(work_dir=Path("w")).work_path == Path("w")


def test_the_configuration_is_the_preset_with_its_overrides():
    assert settings().config == PRESETS["demo"]
    changed = settings(preset="small", assignments={"denoiser.noise": "white"}).config
    assert changed.denoiser.noise == "white"
    assert changed.autoencoder == PRESETS["small"].autoencoder
    for wrong in ({"preset": "huge"}, {"assignments": {"denoiser.noise": "pink"}}):
        with pytest.raises(UsageError):
            _ = settings(**wrong).config


def test_sampling_is_the_models_where_the_call_says_nothing():
    model = SamplingConfig(sampler="ddim", steps=9, guidance=2.0)
    assert settings().sampling(model) == model
    asked = settings(sampler="euler", sampling_steps=3, guidance=0.0).sampling(model)
    assert (asked.sampler, asked.steps, asked.guidance) == ("euler", 3, 0.0)
    assert asked.stride == model.stride


def test_baselines_are_simulated_unless_the_pages_alone_are_rebuilt():
    assert settings().simulating
    assert not settings(baselines=()).simulating
    assert not settings(reports_only=True).simulating


def test_failed_runs_are_an_error_that_lists_them_unless_they_are_accepted():
    problems = {Path("a_bold.nii.gz"): "truncated", Path("b_bold.nii.gz"): "no events"}
    with pytest.raises(DataError, match="2 runs") as caught:
        report_failures(problems, settings(), "written")
    assert all(f"{path}: {reason}" in str(caught.value) for path, reason in problems.items())
    report_failures(problems, settings(skip_bad_runs=True), "written")
    report_failures({}, settings(), "written")


def test_the_work_folder_goes_unless_the_user_named_it(tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    for folder in (out / "work", work):
        folder.mkdir(parents=True)
        (folder / "latents").write_text("x")
    remove_work_files(Settings(tmp_path, out, work_dir=work))
    assert (work / "latents").exists()
    remove_work_files(Settings(tmp_path, out))
    assert not (out / "work").exists()
