"""CSV by RFC 4180, in which no spreadsheet takes a stranger's text for a formula.

A text that begins like a formula gets an apostrophe in front of it, which spreadsheets do not show. Numbers and times
are written by us and stay as they are: a negative amount is no formula.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "＝", "＋", "－", "＠")


def cell(text: str | None) -> str:
    """Somebody's text, as a cell that is never a formula; None is an empty cell."""
    if text is None:
        return ""
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA) else text


def moment(at: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV, each ended by CR LF."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()
