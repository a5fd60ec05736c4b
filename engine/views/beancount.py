"""The books in the language of Beancount: account names that can be read back, and amounts that lose nothing.

Amounts are whole millisatoshi of the commodity MSAT: no decimals, no rounding, no tolerance. A layer is part of the
account's name, since both layers balance by themselves:

    liab:user:wal_01k5, settled    Liabilities:Settled:Liab:User:Wal-u01k5
    asset:lnd:lnd-1:channels       Assets:Settled:Asset:Lnd:Lnd--1:Channels

Beancount allows letters, digits and `-` in a part that begins with a capital or a digit. So `-` introduces what it
does not allow: `--` is `-`, `-u` is `_`, `-d` is `.`, `-a` is `@`. A first small letter becomes a capital; a part that
begins otherwise, or is empty, has `X-x` in front and stays as it is.
"""

import re
from datetime import date

ROOTS = {
    "asset": "Assets",
    "liability": "Liabilities",
    "equity": "Equity",
    "income": "Income",
    "expense": "Expenses",
}
LAYERS = {"settled": "Settled", "held": "Held"}
_COMMODITIES = {"BTC": "MSAT"}
_ESCAPES = {"-": "--", "_": "-u", ".": "-d", "@": "-a"}
_UNESCAPES = {escaped: char for char, escaped in _ESCAPES.items()}
_LITERAL = "X-x"


def account_name(kind: str, layer: str, code: str) -> str:
    """The name of an account's layer."""
    return ":".join([ROOTS[kind], LAYERS[layer], *(_part(part) for part in code.split(":"))])


def account_code(name: str) -> tuple[str, str, str]:
    """(kind, layer, code) of a name: the way back."""
    root, layer, *parts = name.split(":")
    kinds = {text: kind for kind, text in ROOTS.items()}
    layers = {text: key for key, text in LAYERS.items()}
    return kinds[root], layers[layer], ":".join(_original(part) for part in parts)


def commodity(currency: str) -> str:
    """Our smallest unit of a currency, as Beancount names it: MSAT for bitcoin, millionths for the others."""
    return _COMMODITIES.get(currency, f"MICRO-{currency}")


def quoted(text: str) -> str:
    """A string of Beancount on one line; control characters become blanks."""
    plain = re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]", " ", text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def open_line(day: date, name: str, currency: str) -> str:
    """An account begins."""
    return f"{day.isoformat()} open {name} {commodity(currency)}\n"


def transaction(day: date, payee: str, narration: str, facts: dict[str, str], legs: list[tuple[str, int, str]]) -> str:
    """One transfer; `legs` are (account name, amount, currency), debit +."""
    lines = [f"{day.isoformat()} * {quoted(payee)} {quoted(narration)}"]
    lines += [f"  {key}: {quoted(value)}" for key, value in facts.items()]
    lines += [f"  {name}  {amount} {commodity(currency)}" for name, amount, currency in legs]
    return "\n".join(lines) + "\n\n"


def balance_line(day: date, name: str, amount: int, currency: str) -> str:
    """An assertion for Beancount: the account has this amount at the beginning of the day."""
    return f"{day.isoformat()} balance {name}  {amount} {commodity(currency)}\n"


def _part(text: str) -> str:
    escaped = "".join(_ESCAPES.get(char, char) for char in text)
    if re.match(r"[a-z]", text):
        return escaped[0].upper() + escaped[1:]
    return escaped if re.match(r"[0-9]", text) else _LITERAL + escaped


def _original(part: str) -> str:
    if part.startswith(_LITERAL):
        return _unescape(part.removeprefix(_LITERAL))
    text = _unescape(part)
    return text[0].lower() + text[1:]


def _unescape(text: str) -> str:
    return re.sub(r"-.", lambda found: _UNESCAPES[found[0]], text)
