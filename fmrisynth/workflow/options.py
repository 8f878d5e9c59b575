"""Describe options as plain data, from which command line, documentation and files are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from fmrisynth.config.documentation import describe_fields

__all__ = ["NamedOption", "Option", "options_of"]


@dataclass(frozen=True)
class Option:
    """Describe one option; it stands in the annotation of the dataclass field that it fills.

    Attributes
    ----------
    spellings : str
        Flags, apart by spaces. The first long one names the option.
    group : str
        Heading of the help under which the option stands.
    metavar : str
        Placeholder of the value.
    choices : tuple of str
        Values that exist; empty for any.
    minimum : float or None
        Smallest number.
    several : bool
        Whether several words may follow the flag, as in ``--participant-label 01 02``.
    repeated : bool
        Whether the flag may be repeated, with one word each.
    read : callable or None
        Turns the word (or words) into the value; raises ValueError or `UsageError`
        with the message that the user sees.
    absent : str
        What holds without the option, where the default of its field does not say so.
    """

    spellings: str
    group: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    several: bool = False
    repeated: bool = False
    read: Callable[[Any], Any] | None = None
    absent: str = ""


class NamedOption(NamedTuple):
    """An option with the dataclass field that it fills.

    Attributes
    ----------
    field : str
        Name of the field.
    kind : type
        Type of the field, without None.
    default : object
        Value of the field without the option.
    text : str
        Meaning, in Markdown, from the docstring of the dataclass.
    option : Option
        The option.
    """

    field: str
    kind: Any
    default: Any
    text: str
    option: Option


def options_of(settings: type) -> Iterator[NamedOption]:
    """Yield the options of a dataclass, in the order of its fields.

    Parameters
    ----------
    settings : type
        A dataclass; fields that have no `Option` in their annotation are left out.
    """
    hints = get_type_hints(settings, include_extras=True)
    texts = describe_fields(settings)
    for item in fields(settings):
        if get_origin(hints[item.name]) is not Annotated:
            continue
        hint, option = get_args(hints[item.name])
        is_optional = type(None) in get_args(hint)
        kind = next(k for k in get_args(hint) if k is not type(None)) if is_optional else hint
        default = item.default if item.default_factory is MISSING else item.default_factory()
        yield NamedOption(item.name, kind, default, texts[item.name].meaning, option)
