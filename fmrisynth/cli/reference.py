"""Write the reference of options and settings: ``python -m fmrisynth.cli.reference ROOT``.

In the repository at ROOT it rewrites the options of README.md, docs/settings.md,
docs/metrics.md and the Boutiques descriptor, none of which is to be edited by hand.
"""

from __future__ import annotations

import json
import re
import sys
from itertools import groupby
from pathlib import Path

import click

from fmrisynth.cli.boutiques import describe_command
from fmrisynth.cli.main import command
from fmrisynth.cli.options import AppOption, shown_options
from fmrisynth.config.documentation import SettingText, describe_settings
from fmrisynth.config.model import ModelConfig
from fmrisynth.config.presets import PRESETS
from fmrisynth.evaluation.metrics.registry import metrics_reference

__all__ = ["options_reference", "reference_files", "settings_reference"]

START = "<!-- options: written by make reference -->"
END = "<!-- end of the options -->"
METRICS_HEAD = """\
# Metrics

<!-- written by make reference -->

The rows of `group/metrics.tsv`. A name in brackets is a condition or a number of participants; the
endings `_trial_type` and `_contrast` say what the conditions are. The **ceiling** is what real data
reach, a reference and no bound; the **floor** is what a useless generator has. The **rule** is what
the verdict asks for, and the **use** what it speaks for. Intervals are over participants, and as
wide as few of them demand; where they leave a rule open, or where a value is so by construction, it
is not judged.
[development/add_a_metric.md](development/add_a_metric.md) adds one.
"""
SETTINGS_HEAD = """\
# Settings

<!-- written by make reference -->

`--set NAME=VALUE` changes one setting of the preset. A value is JSON; a bare word is a string. The
third column holds the values of the preset `demo`; `config.json` of a model directory holds those
that the model was trained with. `None` is written `null`.
"""


def options_reference(app: click.Command) -> str:
    """Return the options of a command in Markdown, a table for each group."""
    parts = []
    for group, options in groupby(shown_options(app), key=lambda option: option.group):
        rows = [f"| {_spellings(option)} | {_meaning(option)} |" for option in options]
        parts += [f"**{group}**", "\n".join(["| option | what it does |", "|---|---|", *rows])]
    return "\n\n".join(parts)


def _spellings(option: AppOption) -> str:
    """Return the flags of an option with the placeholder of its value."""
    short = [f"`{name}`, " for name in option.opts if not name.startswith("--")]
    long = [name for name in option.opts if name.startswith("--")]
    value = _escaped(option.placeholder).replace("...", "…")
    others = f" ({', '.join(f'`{name}`' for name in long[1:])})" if long[1:] else ""
    return f"{''.join(short)}`{long[0]} {value}".rstrip() + f"`{others}"


def _meaning(option: AppOption) -> str:
    """Return the meaning of an option with its default."""
    return _escaped(f"{option.text} Default: {option.absent}." if option.absent else option.text)


def _escaped(text: str) -> str:
    """Return a text that may stand in a cell of a table."""
    return text.replace("|", r"\|")


def settings_reference(config: ModelConfig) -> str:
    """Return all settings of a configuration in Markdown, a table for each section."""
    head = "| setting | type | value | meaning |\n|---|---|---|---|"
    parts = []
    for section, settings in groupby(describe_settings(config), key=_section):
        rows = [
            f"| `{s.name}` | {_escaped(s.kind)} | `{s.value}` | {_escaped(s.meaning)} |"
            for s in settings
        ]
        parts += [f"## {section}", "\n".join([head, *rows])]
    return "\n\n".join(parts)


def _section(setting: SettingText) -> str:
    """Return the part of a setting's name that is a section."""
    return setting.name.rpartition(".")[0] or "training steps and split"


def reference_files(root: Path) -> dict[Path, str]:
    """Return the files of the reference, as they are to be.

    Parameters
    ----------
    root : pathlib.Path
        The repository, whose README.md has a place for the options.
    """
    readme = (root / "README.md").read_text(encoding="utf-8")
    options = f"{START}\n\n{options_reference(command)}\n\n{END}"
    place = re.compile(f"{re.escape(START)}.*{re.escape(END)}", re.DOTALL)
    descriptor = json.dumps(describe_command(command), indent=2, ensure_ascii=False)
    return {
        root / "README.md": place.sub(lambda _: options, readme),
        root / "docs" / "settings.md": f"{SETTINGS_HEAD}\n{settings_reference(PRESETS['demo'])}\n",
        root / "docs" / "metrics.md": f"{METRICS_HEAD}\n{metrics_reference()}\n",
        root / "boutiques" / "fmrisynth.json": f"{descriptor}\n",
    }


if __name__ == "__main__":
    for path, content in reference_files(Path(sys.argv[1])).items():
        path.write_text(content, encoding="utf-8")
