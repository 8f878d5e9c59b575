"""Read what a dataclass says of its fields, so that their meaning stands in one place."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from typing import Any, NamedTuple

__all__ = ["FieldText", "SettingText", "describe_fields", "describe_settings"]


class FieldText(NamedTuple):
    """Type and meaning of a field, as the docstring of its dataclass gives them.

    Attributes
    ----------
    kind : str
        Type, in words.
    meaning : str
        Description in Markdown, on one line.
    """

    kind: str
    meaning: str


class SettingText(NamedTuple):
    """One setting of a configuration, as ``--set`` takes it.

    Attributes
    ----------
    name : str
        Dotted name.
    kind : str
        Type, in words.
    value : str
        Value in the configuration, as JSON.
    meaning : str
        Description, on one line.
    """

    name: str
    kind: str
    value: str
    meaning: str


def describe_fields(kind: type) -> dict[str, FieldText]:
    """Parse the Attributes section of a dataclass's numpydoc docstring.

    Parameters
    ----------
    kind : type
        The dataclass.

    Returns
    -------
    dict
        Field → type and meaning. An entry of several names, ``a, b : float``, counts
        for each of them.
    """
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")
    section, _, _ = section.partition("\n\n")  # a further section is none of it
    described: dict[str, FieldText] = {}
    for entry in re.split(r"\n(?=\S)", section):
        head, *lines = entry.splitlines()
        names, _, words = head.partition(" : ")
        text = FieldText(words, " ".join(line.strip() for line in lines).replace("``", "`"))
        described |= {name.strip(): text for name in names.split(",")}
    return described


def describe_settings(config: Any, prefix: str = "") -> Iterator[SettingText]:
    """Yield every setting of a configuration, in the order of its fields.

    Parameters
    ----------
    config : dataclass instance
        The configuration.
    prefix : str
        Put before the names.
    """
    texts = describe_fields(type(config))
    content = asdict(config)
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from describe_settings(value, f"{prefix}{item.name}.")
        else:
            kind, meaning = texts[item.name]
            yield SettingText(prefix + item.name, kind, json.dumps(content[item.name]), meaning)
