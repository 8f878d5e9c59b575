"""Turn formulas into MathML when the site is built: browsers show it without a script."""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Replace the formulas that the extension arithmatex has marked."""
    html = _INLINE.sub(lambda found: convert(unescape(found[1])), html)
    return _DISPLAY.sub(lambda found: convert(unescape(found[1]), display="block"), html)
