"""Turn configurations, which are frozen dataclasses, into JSON and strictly back."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fmrisynth.errors import FmrisynthError, ModelError, UsageError

__all__ = ["from_json", "override", "to_json"]

Config = TypeVar("Config")

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)  # .5, which JSON lacks


def to_json(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON values (tuples become lists)."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return content


def from_json(kind: type[Config], content: Any, source: str) -> Config:
    """Build a configuration from JSON, refusing keys and types that it does not have.

    Parameters
    ----------
    kind : type
        A frozen dataclass.
    content : object
        What `to_json` returned.
    source : str
        Where it comes from, for messages.

    Returns
    -------
    object
        An instance of `kind`.

    Raises
    ------
    ModelError
        A key is unknown or missing (other than of a setting that is ``new``, which models of
        before have by default), or a value has the wrong type.
    """
    if not isinstance(content, Mapping):
        raise ModelError(f"{source} is {content!r}, expected an object of settings.")
    hints = get_type_hints(kind)
    required = {f.name: not f.metadata.get("new") for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(content.keys() - required.keys())
    missing = sorted(n for n in required.keys() - content.keys() if required[n])
    if unknown or missing:
        raise ModelError(
            f"{source}: unknown settings {unknown or 'none'}, missing settings "
            f"{missing or 'none'}. Was it written by another version of fmrisynth?"
        )
    values = {n: _value(hints[n], content[n], f"{source}: {n}") for n in required if n in content}
    try:
        return kind(**values)
    except (ValueError, FmrisynthError) as error:
        raise ModelError(f"{source}: {error}.") from None


def _former_names(kind: Any) -> dict[str, str]:
    """Return the present names of the settings that version 0.1 named otherwise."""
    return {f.metadata["formerly"]: f.name for f in fields(kind) if "formerly" in f.metadata}


def _value(hint: Any, value: Any, source: str) -> Any:
    """Convert one JSON value to the type that a field declares."""
    if is_dataclass(hint):
        return from_json(hint, value, source)  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ModelError(f"{source} is {value!r}, expected a list.")
        item = arguments[0]
        return tuple(_value(item, v, source) for v in value)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        return _value(next(a for a in arguments if a is not NoneType), value, source)
    if origin is Literal:
        if value not in arguments:
            raise ModelError(f"{source} is {value!r}, expected one of {list(arguments)}.")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ModelError(f"{source} is {value!r}, expected {hint.__name__}.")
    return value


def override(config: Config, assignments: Mapping[str, str]) -> Config:
    """Return a configuration with some fields replaced.

    Parameters
    ----------
    config : dataclass instance
        The configuration.
    assignments : mapping of str to str
        Dotted field names to values written as JSON (a bare word is a string),
        such as ``{"denoiser.evoked.enabled": "false"}``. A name of version 0.1 is
        accepted with a warning.

    Raises
    ------
    UsageError
        A name does not exist (those that do are listed), a value has the wrong
        type, or the settings do not go together.
    """
    content = to_json(config)
    try:
        for name, text in assignments.items():
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                value = float(text) if _NUMBER.fullmatch(text) else text
            _assign(content, type(config), name.split("."), value, name)
        # all at once: settings such as widths and blocks are right together only
        return from_json(type(config), content, "--set")
    except ModelError as error:
        raise UsageError(str(error)) from None


def _assign(content: dict[str, Any], kind: Any, path: list[str], value: Any, name: str) -> None:
    """Put a value of the right type into the JSON of a configuration, however deep."""
    known = [f.name for f in fields(kind)]
    if present := _former_names(kind).get(path[0]):
        log.warning("--set %s: the setting %s is now called %s", name, path[0], present)
        path = [present, *path[1:]]
    if path[0] not in known:
        raise UsageError(
            f"--set {name}: there is no setting {path[0]!r}; expected one of {', '.join(known)}."
        )
    hint = get_type_hints(kind)[path[0]]
    if len(path) == 1:
        _value(hint, value, f"--set {name}")
        content[path[0]] = value
        return
    if not is_dataclass(hint):
        raise UsageError(f"--set {name}: {path[0]} is a single value and has no {path[1]!r}.")
    _assign(content[path[0]], hint, path[1:], value, name)
