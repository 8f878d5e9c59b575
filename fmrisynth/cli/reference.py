"""Write the generated pages of the documentation: ``python -m fmrisynth.cli.reference ROOT``.

In the repository at ROOT it writes the pages of docs/reference on options, settings, presets,
outputs, metrics and exit codes, and the Boutiques descriptor, none of which is to be edited by
hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import get_args

import click

from fmrisynth.bids.dataset_files import Layout
from fmrisynth.cli.boutiques import describe_command
from fmrisynth.cli.exit_codes import EXIT_CODES
from fmrisynth.cli.main import command
from fmrisynth.cli.options import AppOption, shown_options
from fmrisynth.cli.outputs import OUTPUT_FILES, files_of_a_run
from fmrisynth.config.documentation import SettingText, describe_settings
from fmrisynth.config.model import ModelConfig
from fmrisynth.config.presets import PRESETS, PURPOSES
from fmrisynth.evaluation.metrics.registry import metrics_reference

__all__ = ["options_reference", "reference_files", "settings_reference"]

OPTIONS_HEAD = """\
`fmrisynth BIDS_DIR OUTPUT_DIR participant|group [OPTIONS]`, the first two being folders. Options
that take several words (`…`) take all words up to the next option (put them after the three
arguments), or may be repeated. Every option may be spelled with underscores for its dashes, too.

`--version` says the version, `-h` and `--help` a line on each option. `--notrack`, which other apps
have, is accepted: fmrisynth sends nothing to anybody, with or without it.
"""
SETTINGS_HEAD = """\
`--set NAME=VALUE` changes one setting of the [preset](presets.md). A value is JSON; a bare word is
a string. The third column holds the values of the preset `demo`; `config.json` of a model directory
holds those that the model was trained with. `None` is written `null`.
[Common changes](../how_to/settings.md) shows some in use.
"""
PRESETS_HEAD = """\
`--preset NAME` chooses size and method of the model. The paper gives parameter counts only (the
number in a name, in millions); widths and depths are this project's choice. Its ablations are one
[setting](settings.md) each: All-CNN and All-Transformer are `denoiser.backbone.architecture`, AdaLN
only is `denoiser.backbone.cross_attention=false`.

Version 0.1 called `scaled-*` `paper-*`, and `paper-*` `published-*`; the latter names are accepted
with a warning.
"""
OUTPUTS_HEAD = """\
Names below `OUTPUT_DIR`. An output has one [layout](options.md#what-is-written)
(`--output-layout`); `group` reads any. Files appear only when they are complete.

## Files of a run

Their names for `sub-01`, task `motor`, first run:
"""
METRICS_HEAD = """\
The rows of `group/metrics.tsv`. A name in brackets is a condition or a number of participants; the
endings `_trial_type` and `_contrast` say what the conditions are. The **ceiling** is what real data
reach, a reference and no bound; the **floor** is what a useless generator has. The **rule** is what
the verdict asks for, and the **use** what it speaks for. Intervals are over participants, and as
wide as few of them demand; where they leave a rule open, or where a value is so by construction, it
is not judged. [The report](../explanation/evaluation.md) explains how to read them;
[Add a metric](../development/add_a_metric.md) adds one.
"""
EXIT_CODES_HEAD = """\
Those of the BIDS execution specification. Every message says what was found, what was expected, in
which file, and what to do.
"""


def options_reference(app: click.Command) -> str:
    """Return the options of a command in Markdown, a table for each group."""
    parts = []
    for group, options in groupby(shown_options(app), key=lambda option: option.group):
        rows = [(_spellings(option), _meaning(option)) for option in options]
        parts += [f"## {group}", _table(("option", "what it does"), rows)]
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [" | ".join(head), "|".join(["---"] * len(head)), *(" | ".join(row) for row in rows)]
    return "\n".join(f"|{line}|" if set(line) <= set("-|") else f"| {line} |" for line in lines)


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
    parts = []
    for section, settings in groupby(describe_settings(config), key=_section):
        rows = [
            (f"`{s.name}`", _escaped(s.kind), f"`{s.value}`", _escaped(s.meaning)) for s in settings
        ]
        parts += [f"## {section}", _table(("setting", "type", "value", "meaning"), rows)]
    return "\n\n".join(parts)


def _section(setting: SettingText) -> str:
    """Return the part of a setting's name that is a section."""
    return setting.name.rpartition(".")[0] or "training steps and split"


def _presets_reference() -> str:
    """Return all presets in Markdown, with the settings that tell them apart most."""
    families = {name if name in PRESETS else f"{name}-*": text for name, text in PURPOSES.items()}
    purposes = _table(("preset", "what it is"), [(f"`{k}`", v) for k, v in families.items()])
    rows = [
        (
            f"`{name}`",
            f"{config.preprocess.voxel_size:g} mm",
            f"{config.denoiser.n_frames} × {config.autoencoder.latent_channels}",
            f"`{config.denoiser.backbone.architecture}` "
            + " ".join(map(str, config.denoiser.backbone.widths))
            + (", stem" if config.denoiser.backbone.stem > 1 else ""),
            f"{config.diffusion_steps:,}",
            f"`{config.sampling.sampler}`, {config.sampling.steps}",
        )
        for name, config in PRESETS.items()
    ]
    head = ("preset", "grid", "frames × channels", "backbone, widths", "steps", "sampler, steps")
    return f"{purposes}\n\n## Sizes\n\n{_table(head, rows)}"


def _outputs_reference() -> str:
    """Return the files of an output in Markdown."""
    layouts = get_args(Layout)
    rows = [
        (meaning, *(f"`{names[layout]}`" if layout in names else "" for layout in layouts))
        for meaning, names in files_of_a_run().items()
    ]
    run = _table(("what it is", *(f"`{layout}`" for layout in layouts)), rows)
    files = _table(("file", "what it is"), [(f"`{k}`", v) for k, v in OUTPUT_FILES.items()])
    return f"{run}\n\n## All files\n\n{files}"


def _exit_codes_reference() -> str:
    """Return the exit codes in Markdown."""
    return _table(("code", "meaning"), [(str(code), text) for code, text in EXIT_CODES.items()])


def reference_files(root: Path) -> dict[Path, str]:
    """Return the generated files, as they are to be.

    Parameters
    ----------
    root : pathlib.Path
        The repository.
    """
    pages = {
        "options": ("Options", OPTIONS_HEAD, options_reference(command)),
        "settings": ("Settings", SETTINGS_HEAD, settings_reference(PRESETS["demo"])),
        "presets": ("Presets", PRESETS_HEAD, _presets_reference()),
        "outputs": ("Outputs", OUTPUTS_HEAD, _outputs_reference()),
        "metrics": ("Metrics", METRICS_HEAD, metrics_reference()),
        "exit_codes": ("Exit codes", EXIT_CODES_HEAD, _exit_codes_reference()),
    }
    mark = "<!-- written by make reference -->"
    descriptor = json.dumps(describe_command(command), indent=2, ensure_ascii=False)
    return {
        root / "docs" / "reference" / f"{name}.md": f"# {title}\n\n{mark}\n\n{head}\n{content}\n"
        for name, (title, head, content) in pages.items()
    } | {root / "boutiques" / "fmrisynth.json": f"{descriptor}\n"}


if __name__ == "__main__":
    for path, content in reference_files(Path(sys.argv[1])).items():
        path.write_text(content, encoding="utf-8")
