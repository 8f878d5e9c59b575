"""Describe the command line in the form of Boutiques (https://boutiques.github.io)."""

from __future__ import annotations

from typing import Any

import click

from fmrisynth import __version__
from fmrisynth.cli.exit_codes import EXIT_CODES
from fmrisynth.cli.options import AppOption, shown_options
from fmrisynth.workflow.settings import LEVELS

__all__ = ["describe_command"]

ARGUMENTS: list[dict[str, Any]] = [
    {
        "id": "bids_dir",
        "name": "BIDS directory",
        "type": "File",
        "value-key": "[BIDS_DIR]",
        "description": "Root of the BIDS dataset; it is only read.",
    },
    {
        "id": "output_dir",
        "name": "Output directory",
        "type": "String",
        "value-key": "[OUTPUT_DIR]",
        "description": "Folder that the synthetic dataset and the report are written to.",
    },
    {
        "id": "analysis_level",
        "name": "Analysis level",
        "type": "String",
        "value-key": "[ANALYSIS_LEVEL]",
        "value-choices": list(LEVELS),
        "description": "participant learns or loads a model and writes synthetic runs; group "
        "compares them with held-out real runs.",
    },
]
OUTPUTS: list[dict[str, Any]] = [
    {
        "id": "dataset",
        "name": "Synthetic dataset",
        "path-template": "[OUTPUT_DIR]",
        "description": "BIDS derivatives, model, metrics and report.",
    },
    {
        "id": "report",
        "name": "Group report",
        "path-template": "[OUTPUT_DIR]/group.html",
        "optional": True,
        "description": "Self-contained page, written by the group level.",
    },
]


def describe_command(command: click.Command) -> dict[str, Any]:
    """Return the Boutiques descriptor of the command line.

    Parameters
    ----------
    command : click.Command
        The command, whose shown options are described.
    """
    inputs = ARGUMENTS + [_input(option) for option in shown_options(command)]
    return {
        "name": "fmrisynth",
        "description": (command.help or "").partition("\n")[0],
        "tool-version": __version__,
        "schema-version": "0.5",
        "author": "The fmrisynth developers",
        "tags": {"domain": ["neuroinformatics", "mri"], "application-type": ["bids"]},
        "command-line": " ".join(["fmrisynth", *(str(entry["value-key"]) for entry in inputs)]),
        "inputs": inputs,
        "output-files": OUTPUTS,
        "error-codes": _error_codes(),
    }


def _input(option: AppOption) -> dict[str, Any]:
    """Return the entry of an option."""
    name = option.flag.removeprefix("--").replace("-", "_")
    entry = {
        "id": name,
        "name": name.replace("_", " ").capitalize(),
        "optional": True,
        "value-key": f"[{name.upper()}]",
        "command-line-flag": option.flag,
        "description": option.short_text,
        **_kind(option),
    }
    return entry | {"list": True} if option.several else entry


def _kind(option: AppOption) -> dict[str, Any]:
    """Return what Boutiques says of the values of an option."""
    if option.is_flag or option.count:
        return {"type": "Flag"}
    if isinstance(option.type, click.Choice):
        return {"type": "String", "value-choices": list(option.type.choices)}
    if isinstance(option.type, click.IntRange):
        return {"type": "Number", "integer": True, "minimum": option.type.min}
    if isinstance(option.type, click.FloatRange):
        return {"type": "Number", "minimum": option.type.min}
    # of a path that need not exist Boutiques could not say "File"
    return {"type": "File" if option.metavar == "FILE" or option.flag == "--model" else "String"}


def _error_codes() -> list[dict[str, Any]]:
    """Return the exit codes that are no success, with their meaning as plain text."""
    plain = {code: text.replace("`", "") for code, text in EXIT_CODES.items() if code != 0}
    return [
        {"code": code, "description": f"{text[0].upper()}{text[1:]}."}
        for code, text in plain.items()
    ]
