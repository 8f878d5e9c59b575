"""How words become options: lists, pairs, times and sizes, and the file that holds them."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fmrisynth.choices import ANY_TASK, BASELINE_NAMES, NO_BASELINE

__all__ = [
    "BidsAppCommand",
    "ListOption",
    "assignments",
    "baselines",
    "config_file",
    "events_tables",
    "gigabytes",
    "named_paths",
    "seconds",
]

CONFIG_SETTINGS = "fmrisynth.cli.parsing.settings"  # of click's context: --set of the config file
GB = {"K": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}


class ListOption(click.Option):
    """An option that takes several words, ``--participant-label 01 02``, as peers do."""


class BidsAppCommand(click.Command):
    """Lets list options take every word up to the next option, and config files be named."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Repeat a list option's name before each of its words, then parse as usual."""
        options = [p for p in self.params if isinstance(p, click.Option)]
        lists = {n for p in options if isinstance(p, ListOption) for n in p.opts}
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
    return word.startswith("-") and len(word) > 1


def seconds(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> float | None:
    """Read ``HH:MM:SS`` (or ``MM:SS``, or seconds)."""
    if value is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+)", value)
    hours, minutes, rest = (int(g or 0) for g in match.groups()) if match else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + rest):
        raise click.BadParameter(f"{value!r} is not a time; expected HH:MM:SS, such as 01:30:00.")
    return float(total)


def gigabytes(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> float | None:
    """Read an amount of memory: a number of GB, or one with K, M, G or T behind it."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:([KMGT])i?B?)?", value, re.IGNORECASE)
    amount = float(match[1]) * GB[(match[2] or "G").upper()] if match else 0.0
    if not match or not amount:
        raise click.BadParameter(
            f"{value!r} is not an amount of memory; expected GB, such as 16, or 16G or 16000M."
        )
    if match[2] is None and amount >= 1000:  # some programs read a bare number as MB
        raise click.BadParameter(
            f"{value!r} without a unit means GB here; write {value}M, or {amount / 1000:g}G."
        )
    return amount


def assignments(
    context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """Read ``NAME=VALUE`` pairs; those of the config file stay where they are not given again."""
    pairs = [value.partition("=") for value in values]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise click.BadParameter(f"{wrong[0]!r} has no '='; expected NAME=VALUE.")
    kept: dict[str, str] = context.meta.get(CONFIG_SETTINGS, {})
    return kept | {name: value for name, _, value in pairs}


def baselines(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> tuple[str, ...]:
    """Read names of baselines, without repeats; none for ``none``."""
    if unknown := [name for name in values if name not in (*BASELINE_NAMES, NO_BASELINE)]:
        raise click.BadParameter(
            f"{unknown[0]!r} is no baseline; expected one or more of {', '.join(BASELINE_NAMES)}, "
            f"or {NO_BASELINE}."
        )
    names = tuple(dict.fromkeys(values))
    if NO_BASELINE not in names:
        return names
    if len(names) > 1:
        raise click.BadParameter(f"{' '.join(values)!r}: {NO_BASELINE} stands alone.")
    return ()


def named_paths(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, Path]:
    """Read ``[NAME=]PATH`` words."""
    named: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition("=")
        root = Path(path if equals else value)
        key = own = name if equals else root.resolve().name
        count = 1
        while key in named and named[key] != root:  # two datasets of one name are two
            count += 1
            key = f"{own}{count}"
        named[key] = root
    return named


def events_tables(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> dict[str, Path]:
    """Read ``[TASK=]FILE`` words; without a task, the file is for the only one there is."""
    tables: dict[str, Path] = {}
    for value in values:
        task, equals, path = value.rpartition("=")
        task = task.removeprefix("task-")
        if task in tables:
            raise click.BadParameter(
                f"{value!r} is a second table for {f'the task {task}' if equals else 'every task'}."
            )
        tables[task] = Path(path)
    if len(tables) > 1 and ANY_TASK in tables:
        raise click.BadParameter(f"say which task {str(tables[ANY_TASK])!r} is for: TASK=FILE.")
    return tables


def config_file(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    """Read options from a TOML file; those of the command line win over them.

    Parameters
    ----------
    context, parameter : click objects
        The command that is parsed, and this option.
    value : pathlib.Path or None
        The file.

    Raises
    ------
    click.BadParameter
        It cannot be read, or holds what is no option; the message names the
        file and the options that are spelled alike.
    """
    if value is None:
        return None
    try:
        content = tomllib.loads(value.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{value} cannot be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value} is not TOML: {error}.") from None
    known = {
        name.removeprefix("--").replace("_", "-"): option
        for option in context.command.params
        if isinstance(option, click.Option) and not option.is_eager and option is not parameter
        for name in option.opts
        if name.startswith("--")
    }
    found: dict[str, Any] = {}
    for key, entry in content.items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            raise click.BadParameter(_unknown(key, known, value))
        assert option.name is not None
        if option.name in found:
            raise click.BadParameter(f"{value} gives {option.opts[0]} twice, also as {key!r}.")
        found[option.name] = _checked(entry, option, f"{value}: {key}")
    if settings := found.pop("assignments", None):
        pairs = (setting.partition("=") for setting in settings)
        context.meta[CONFIG_SETTINGS] = {name: text for name, _, text in pairs}
    context.default_map = found
    return value


def _unknown(key: str, known: dict[str, click.Option], path: Path) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=3)
    names = {option.name: name for name, option in reversed(known.items())}  # the first of each
    expected = (
        f"did you mean {' or '.join(near)}?"
        if near
        else (f"expected one of {', '.join(sorted(names.values()))}")
    )
    return f"{path}: there is no option {key!r}; {expected}"


def _checked(entry: Any, option: click.Option, where: str) -> Any:
    """Return a value of the file as click takes it from the command line."""
    if option.is_flag or (option.count and isinstance(entry, bool)):
        if not isinstance(entry, bool):
            raise click.BadParameter(f"{where} is {entry!r}; expected true or false.")
        return int(entry) if option.count else entry
    if isinstance(entry, dict) and option.callback in (assignments, events_tables, named_paths):
        return [f"{name}={value}" for name, value in _flattened(entry)]
    entries = entry if isinstance(entry, list) and option.multiple else [entry]
    for item in entries:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            kind = "a list of words or numbers" if option.multiple else "one word or number"
            raise click.BadParameter(f"{where} is {entry!r}; expected {kind}.")
    if option.callback is assignments and (
        wrong := [item for item in entries if "=" not in str(item)]
    ):
        raise click.BadParameter(f"{where}: {wrong[0]!r} has no '='; expected NAME=VALUE.")
    # numbers stay numbers for a count such as -v alone: click reads text
    texts = [item if option.count else str(item) for item in entries]
    return texts if option.multiple else texts[0]


def _flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted names and values of a table, as ``--set`` takes them."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value, default=str)
