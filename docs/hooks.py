"""Change pages when the site is built, and check that its search knows the names of the program.

Formulas become MathML, which browsers show without a script; options in running text stay on one
line; columns of text are marked, so that they are not squeezed beside numbers.
"""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority

from fmrisynth.cli.exit_codes import EXIT_CODES
from fmrisynth.cli.main import command
from fmrisynth.cli.options import shown_options
from fmrisynth.config.documentation import describe_settings
from fmrisynth.config.presets import PRESETS
from fmrisynth.evaluation.metrics.registry import all_metrics

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
_CODE = re.compile(r"(?<!</span>)<code>([^<]*)</code>")
_OPTION = re.compile(r"(?<![\w-])-{1,2}[a-z][a-z-]*")
_CELL = re.compile(r"<td>(.*?)</td>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")

LONG = 40
"""Number of letters from which a cell of a table counts as text."""


def on_page_content(html: str, **_: Any) -> str:
    """Replace the marked formulas, keep options on one line, mark cells that hold text."""
    html = _INLINE.sub(lambda found: convert(unescape(found[1])), html)
    html = _DISPLAY.sub(lambda found: convert(unescape(found[1]), display="block"), html)
    html = _CODE.sub(_unbroken_options, html)
    return _CELL.sub(_marked_cell, html)


def _unbroken_options(found: re.Match[str]) -> str:
    """Return inline code in which no line breaks after the dashes of an option."""
    inner = _OPTION.sub(r'<span class="option">\g<0></span>', found[1])
    return f"<code>{inner}</code>"


def _marked_cell(found: re.Match[str]) -> str:
    """Return a cell, with a class where it holds more than some words."""
    text = unescape(_TAG.sub("", found[1]))
    return f'<td class="text">{found[1]}</td>' if len(text) >= LONG else found[0]


@event_priority(-100)  # after the index is written
def on_post_build(config: Any, **_: Any) -> None:
    """Refuse a site whose search does not find a name of the reference."""
    index = json.loads(Path(config.site_dir, "search", "search_index.json").read_text("utf-8"))
    separator = re.compile(index["config"]["separator"])
    found = [set(_words(_TAG.sub(" ", doc["text"]), separator)) for doc in index["docs"]]
    missing = [
        name
        for name in _names()
        if not any(words >= set(_words(name, separator)) for words in found)
    ]
    if missing:
        raise PluginError(f"the search of the site does not find {', '.join(missing)}")


def _words(text: str, separator: re.Pattern[str]) -> Iterator[str]:
    """Yield the words of a text as the search forms them."""
    words = (re.sub(r"^\W+|\W+$", "", word) for word in separator.split(unescape(text)))
    return (word for word in words if word)


def _names() -> Iterator[str]:
    """Yield all options, settings, presets, metrics and exit codes."""
    yield from (option.flag for option in shown_options(command))
    yield from (setting.name for setting in describe_settings(PRESETS["demo"]))
    yield from PRESETS
    yield from (metric.name for metric in all_metrics())
    yield from map(str, EXIT_CODES)
