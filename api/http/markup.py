"""HTML from templates, in which every text is escaped, and what belongs to a page: hashes of its parts, QR codes."""

import base64
import hashlib
import html
import io
from functools import lru_cache
from string import Template
from typing import Any

import segno

from engine.domain.bip21 import qr_pieces


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


def qr_code(text: str) -> Markup:
    """The QR code of an invoice or LNURL, for a page. Upper case makes it smaller."""
    return Markup(_drawn((f"LIGHTNING:{text.upper()}",), inline=True))


def uri_qr_code(uri: str) -> Markup:
    """The QR code of a `bitcoin:` URI, for a page."""
    return Markup(_drawn(qr_pieces(uri), inline=True))


def qr_file(uri: str) -> bytes:
    """The QR code of a `bitcoin:` URI, as an SVG file."""
    return _drawn(qr_pieces(uri), inline=False).encode()


@lru_cache(maxsize=1_024)
def _drawn(pieces: tuple[str, ...], *, inline: bool) -> str:
    """An SVG. Drawing one takes 5 to 12 ms, so codes are cached."""
    segments: Any = [(piece, None) for piece in pieces]  # each in the encoding that is smallest for it
    code = segno.make(segments, error="l", micro=False)
    if inline:
        return str(code.svg_inline(border=2, omitsize=True, svgclass=None, lineclass=None))
    file = io.BytesIO()
    code.save(file, kind="svg", border=4, scale=4, svgclass=None, lineclass=None)
    return file.getvalue().decode()
