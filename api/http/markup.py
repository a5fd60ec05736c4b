"""HTML from templates, in which every text is escaped, and what belongs to a page: hashes of its parts, QR codes."""

import base64
import hashlib
import html
from functools import lru_cache
from string import Template

import segno


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def filled(template: Template, **texts: str) -> Markup:
    """The template with these texts, each escaped unless it is HTML already."""
    safe = {name: text if isinstance(text, Markup) else html.escape(text) for name, text in texts.items()}
    return Markup(template.substitute(safe))


def source(text: str) -> str:
    """The source by which a content security policy allows this script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@lru_cache(maxsize=1_024)
def qr_code(text: str) -> Markup:
    """A QR code that a wallet opens. Upper case makes it smaller. Drawing one takes 5 to 12 ms, so codes are cached."""
    svg = segno.make(f"LIGHTNING:{text.upper()}", error="l", micro=False).svg_inline(
        border=2, omitsize=True, svgclass=None, lineclass=None
    )
    return Markup(svg)
