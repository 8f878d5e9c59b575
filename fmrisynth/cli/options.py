"""Make the options of the command line from the settings of a call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_origin

import click

from fmrisynth.cli.config_file import read_config_file
from fmrisynth.errors import UsageError
from fmrisynth.workflow.options import NamedOption, options_of
from fmrisynth.workflow.settings import Settings

__all__ = ["CALL", "AppOption", "app_options", "shown_options"]

CALL = "Call"
SENTENCE = re.compile(r"(?<=\.)\s")


class AppOption(click.Option):
    """An option that stands under a heading of the help and may take several words.

    Parameters
    ----------
    flags : list of str
        Its name as a parameter and its spellings; help shows the first of the long ones.
    group : str
        Heading.
    text : str
        Meaning, in Markdown; help shows the first sentence.
    several : bool
        Whether several words may follow, ``--participant-label 01 02``, as in peers.
    is_table : bool
        Whether it holds pairs, which a configuration file may give as a table.
    absent : str
        What holds without it, in Markdown.
    **attributes
        As of `click.Option`.
    """

    def __init__(
        self,
        flags: list[str],
        *,
        group: str,
        text: str = "",
        several: bool = False,
        is_table: bool = False,
        absent: str = "",
        **attributes: Any,
    ) -> None:
        super().__init__(flags, **attributes)
        self.group, self.text, self.several, self.is_table = group, text, several, is_table
        self.absent = absent

    @property
    def flag(self) -> str:
        """The spelling that names the option."""
        return next(name for name in self.opts if name.startswith("--"))

    @property
    def short_text(self) -> str:
        """First sentence of the meaning and what holds without the option, without markup."""
        meaning = SENTENCE.split(self.text)[0]
        default = f" [default: {self.absent}]" if self.absent else ""
        return f"{meaning}{default}".replace("`", "")

    @property
    def placeholder(self) -> str:
        """What stands for the value in the help; empty for a flag."""
        choices = self.type.choices if isinstance(self.type, click.Choice) else ()
        return self.metavar or "|".join(choices)

    def get_help_record(self, _context: click.Context) -> tuple[str, str] | None:
        """Return the two columns of the help."""
        if self.hidden:
            return None
        short = [name for name in self.opts if not name.startswith("--")]
        names = f"{', '.join([*short, self.flag])} {self.placeholder}".rstrip()
        return names, self.short_text


def app_options() -> list[click.Parameter]:
    """Return all options, in the order in which the help shows them."""
    return [*map(_option, options_of(Settings)), *_options_of_the_call()]


def shown_options(command: click.Command) -> list[AppOption]:
    """Return the options of a command that are shown, in order."""
    return [p for p in command.params if isinstance(p, AppOption) and not p.hidden]


def _option(named: NamedOption) -> AppOption:
    """Make the option that fills a field of the settings."""
    option, is_table = named.option, get_origin(named.kind) is Mapping
    multiple = option.several or option.repeated
    is_flag = named.kind is bool
    return AppOption(
        [named.field, *option.spellings.split()],
        group=option.group,
        text=named.text,
        several=option.several,
        is_table=is_table and multiple,
        absent=option.absent or _default_text(named),
        multiple=multiple,
        is_flag=is_flag,
        type=None if is_flag else _type(named),
        metavar=option.metavar or None,
        default=None if is_table else named.default,
        callback=_reading(named) if option.read else None,
    )


def _default_text(named: NamedOption) -> str:
    """Return the default of an option in Markdown; empty for a flag and for nothing."""
    if named.kind is bool or named.default is None:
        return ""
    values = [named.default] if isinstance(named.default, str | int | float) else named.default
    return " ".join(f"`{value}`" for value in values)


def _type(named: NamedOption) -> click.ParamType:
    """Return how click checks the value of an option."""
    option, kind = named.option, named.kind
    if option.read or kind not in (int, float, Path):
        return click.Choice(option.choices) if option.choices and not option.read else click.STRING
    if kind is Path:
        return click.Path(path_type=Path)
    if kind is int:
        return click.IntRange(None if option.minimum is None else int(option.minimum))
    return click.FloatRange(option.minimum)


def _reading(named: NamedOption) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return click's callback that turns the words of an option into its value."""
    option = named.option
    assert option.read is not None
    read = option.read

    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if value is None:
            return named.default
        if option.repeated:  # a setting of the command line replaces that setting of the file
            value = (*(context.default_map or {}).get(named.field, ()), *value)
        try:
            return read(value)
        except (ValueError, UsageError) as error:
            raise click.BadParameter(str(error)) from None

    return callback


def _options_of_the_call() -> list[click.Option]:
    """Return the options that say how to call, not what to do."""
    return [
        AppOption(
            ["--config-file"],
            group=CALL,
            text="TOML file of options by their names here; the command line wins over it. See "
            "[configuration file](../how_to/own_data.md#configuration-file).",
            metavar="FILE",
            type=click.Path(path_type=Path),
            is_eager=True,
            callback=read_config_file,
        ),
        AppOption(
            ["--dry-run"],
            group=CALL,
            text="Print settings, inputs and outputs as JSON, and write nothing. There is no log "
            "and no validation, either.",
            is_flag=True,
        ),
        AppOption(
            ["-v", "--verbose"],
            group=CALL,
            text="Show what goes into the log file. The file always has everything.",
            count=True,
        ),
        # other BIDS-Apps have it; nothing is ever sent anywhere
        AppOption(["--notrack"], group=CALL, is_flag=True, hidden=True),
    ]
