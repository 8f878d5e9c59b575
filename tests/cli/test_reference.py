"""Options and settings are written in one place: help, documentation and files are made of it."""

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fmrisynth import __version__, errors
from fmrisynth.cli.boutiques import describe_command
from fmrisynth.cli.exit_codes import EXIT_CODES
from fmrisynth.cli.main import command
from fmrisynth.cli.options import AppOption, shown_options
from fmrisynth.cli.outputs import OUTPUT_FILES
from fmrisynth.cli.reference import reference_files
from fmrisynth.config.codec import override
from fmrisynth.config.documentation import describe_fields, describe_settings
from fmrisynth.config.presets import PRESETS
from fmrisynth.evaluation.metrics.registry import all_metrics
from fmrisynth.workflow.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
SCREEN = 40  # lines
OPTIONS = shown_options(command)


def help_at(width):
    context = click.Context(command, info_name="fmrisynth", terminal_width=width)
    return command.get_help(context)


def test_the_files_of_the_reference_are_those_that_the_code_writes():
    """Else: make reference."""
    for path, content in reference_files(REPOSITORY).items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: run make reference"


def test_every_setting_option_preset_metric_and_exit_code_is_in_the_reference():
    pages = {path.stem: content for path, content in reference_files(Path()).items()}
    assert all(f"`{option.flag}" in pages["options"] for option in OPTIONS)
    assert all(f"| `{name}` |" in pages["presets"] for name in PRESETS)
    assert all(f"| `{s.name}` |" in pages["settings"] for s in describe_settings(PRESETS["demo"]))
    assert all(f"| `{metric.name}` |" in pages["metrics"] for metric in all_metrics())
    assert all(f"| {code} |" in pages["exit_codes"] for code in EXIT_CODES)
    assert all(f"| `{pattern}` |" in pages["outputs"] for pattern in OUTPUT_FILES)


def test_help_fits_two_screens():
    text = help_at(100)
    assert len(text.splitlines()) <= 2 * SCREEN
    assert max(map(len, text.splitlines())) <= 100


def test_help_begins_with_the_two_commands():
    lines = help_at(100).splitlines()
    assert "participant|group" in lines[0]
    for level in ("participant", "group"):
        assert any(re.match(rf"{level}\s{{2,}}\w", line) for line in lines[1:8])


def test_help_has_every_option_once_under_its_heading():
    sections = re.split(r"\n\n(?=\S.*:\n)", help_at(100))[1:]
    headings = [section.partition(":")[0] for section in sections]
    assert headings == list(dict.fromkeys(option.group for option in OPTIONS))
    for option in OPTIONS:
        holders = [
            section.partition(":")[0]
            for section in sections
            if re.search(rf"^  (-\w, )?{option.flag}\b(?!-)", section, re.MULTILINE)
        ]
        assert holders == [option.group], option.flag


def test_options_that_do_nothing_are_accepted_and_hidden():
    hidden = [p for p in command.params if isinstance(p, AppOption) and p.hidden]
    assert [option.flag for option in hidden] == ["--notrack"]
    assert "--notrack" not in help_at(100)
    assert CliRunner().invoke(command, ["--notrack", "--version"]).exit_code == 0


def test_every_field_of_the_settings_has_an_option_or_an_argument():
    names = {parameter.name for parameter in command.params}
    assert {item.name for item in fields(Settings)} <= names


def test_every_option_says_what_it_means_in_one_short_sentence_first():
    for option in OPTIONS:
        first = re.split(r"(?<=\.)\s", option.text)[0]
        assert first.endswith("."), option.flag
        assert 10 < len(first) <= 80, option.flag


@pytest.mark.parametrize("name", PRESETS)
def test_every_setting_is_described_and_can_be_set(name):
    config = PRESETS[name]
    settings = list(describe_settings(config))
    assert len({setting.name for setting in settings}) == len(settings) > 60
    for setting in settings:
        assert setting.kind, setting.name
        assert setting.meaning.endswith("."), setting.name
    assert override(config, {setting.name: setting.value for setting in settings}) == config


def test_descriptions_have_no_field_that_is_not_there():
    kinds, configs = [Settings], [PRESETS["demo"]]
    while configs:
        config = configs.pop()
        kinds.append(type(config))
        configs += [value for value in vars(config).values() if is_dataclass(value)]
    assert len(kinds) > 8
    for kind in kinds:
        assert describe_fields(kind).keys() == {item.name for item in fields(kind)}, kind


def test_boutiques_has_the_command_line():
    descriptor = describe_command(command)
    assert descriptor["tool-version"] == __version__
    flags = [e["command-line-flag"] for e in descriptor["inputs"] if "command-line-flag" in e]
    assert flags == [option.flag for option in OPTIONS]
    placed = re.findall(r"\[[A-Z_]+\]", descriptor["command-line"])
    assert placed == [entry["value-key"] for entry in descriptor["inputs"]]
    by_flag = {entry.get("command-line-flag"): entry for entry in descriptor["inputs"]}
    assert by_flag["--n-samples"]["minimum"] == 1
    assert by_flag["--participant-label"]["list"] is True
    assert by_flag["--sampler"]["value-choices"] == ["euler", "ddim", "ddpm", "dpmpp-2m"]
    codes = {entry["code"] for entry in descriptor["error-codes"]}
    assert {getattr(errors, name).exit_code for name in errors.__all__} | {17, 130, 143} == codes
    json.dumps(descriptor)
