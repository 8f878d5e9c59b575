"""Parse the words of a call as BIDS-Apps do, and lay out the help."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import click
from click.core import ParameterSource

from fmrisynth.cli.options import CALL, AppOption

__all__ = ["BidsAppCommand"]

FLAG_COLUMN = 38  # widest column of flags in the help


class BidsAppCommand(click.Command):
    """A command whose list options take every word up to the next option.

    Its help begins with what it does at each level, and shows the options in groups.
    """

    def format_usage(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first line of the help: the arguments, with the levels."""
        arguments = "BIDS_DIR OUTPUT_DIR participant|group [OPTIONS]"
        formatter.write_usage(context.command_path, arguments)

    def format_help_text(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help's text as it stands, line by line."""
        formatter.write(f"\n{inspect.cleandoc(self.help or '')}\n")

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(context):
            group = option.group if isinstance(option, AppOption) else CALL
            record = option.get_help_record(context) if isinstance(option, click.Option) else None
            if record:
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records, col_max=FLAG_COLUMN)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Repeat a list option's name before each of its words, then parse as usual."""
        options = [p for p in self.params if isinstance(p, click.Option)]
        lists = {n for p in options if isinstance(p, AppOption) and p.several for n in p.opts}
        single = {n for p in options if not (p.is_flag or p.count) for n in p.opts} - lists
        known = {n for p in options for n in p.opts}
        try:
            return super().parse_args(context, _spread(_dashed(args, known), lists, single))
        except click.BadParameter as error:
            name = error.param.name if error.param else None
            source = context.get_parameter_source(name) if name else None
            if source is not ParameterSource.DEFAULT_MAP:
                raise
            where = f"{error.message} It stands in {context.params['config_file']}."
            raise click.BadParameter(where, context, error.param) from None


def _dashed(args: Sequence[str], known: set[str]) -> list[str]:
    """Read ``--work_dir`` as ``--work-dir``: every option may be spelled either way."""
    words: list[str] = []
    for position, word in enumerate(args):
        if word == "--":
            return words + list(args[position:])
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        other = name.startswith("--") and name not in known and dashed in known
        words.append(dashed + equals + value if other else word)
    return words


def _spread(
    args: Sequence[str], lists: set[str], single: set[str], positional: int = 3
) -> list[str]:
    """Turn ``--label a b`` into ``--label a --label b``.

    Words behind a list option are its values up to the next option; at the end
    of the line, those that the positional arguments still need are theirs.

    Parameters
    ----------
    args : sequence of str
        The words.
    lists, single : set of str
        Names of options that take several words, and one.
    positional : int
        Arguments that the command needs.
    """
    spread: list[str] = []
    position = 0
    while position < len(args):
        word = args[position]
        position += 1
        if word in lists:
            end = position
            while end < len(args) and not _is_option(args[end]):
                end += 1
            reserved = max(0, positional) if end == len(args) else 0
            values = args[position : max(position + 1, end - reserved)]
            spread += [part for value in values for part in (word, value)] or [word]
            position += len(values)
            continue
        spread.append(word)
        if word == "--":
            return spread + list(args[position:])
        if word in single and position < len(args):
            spread.append(args[position])
            position += 1
        elif not _is_option(word):
            positional -= 1
    return spread


def _is_option(word: str) -> bool:
    """Whether a word is the name of an option, not a value."""
    return word.startswith("-") and len(word) > 1
