"""Read options from the TOML file of ``--config-file``."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

__all__ = ["read_config_file"]


def read_config_file(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    """Make the options of a TOML file the defaults of a call.

    Parameters
    ----------
    context, parameter : click objects
        The command that is parsed, and ``--config-file``.
    value : pathlib.Path or None
        The file.

    Raises
    ------
    click.BadParameter
        The file cannot be read, or has a key that is no option; the message names the
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
    defaults: dict[str, Any] = {}
    for key, entry in content.items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            raise click.BadParameter(_unknown(key, known, value))
        assert option.name is not None
        if option.name in defaults:
            raise click.BadParameter(f"{value} gives {option.opts[0]} twice, also as {key!r}.")
        defaults[option.name] = _checked(entry, option, f"{value}: {key}")
    context.default_map = defaults
    return value


def _unknown(key: str, known: dict[str, click.Option], path: Path) -> str:
    """Return the message about a key that is no option."""
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=3)
    # of several spellings the first
    names = {o.name: name for name, o in reversed(known.items()) if not o.hidden}
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
    is_table = getattr(option, "is_table", False)
    if isinstance(entry, dict) and is_table:
        return [f"{name}={value}" for name, value in _flattened(entry)]
    entries = entry if isinstance(entry, list) and option.multiple else [entry]
    for item in entries:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            kind = "a list of words or numbers" if option.multiple else "one word or number"
            raise click.BadParameter(f"{where} is {entry!r}; expected {kind}.")
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
