"""Usernames: what comes after the `@`, unique without regard to case.

A name that begins like an address or an invoice is refused, so that nothing a person pastes can be both.
"""

import re

from engine.domain.errors import Invalid

PATTERN = r"^[0-9A-Za-z_]{3,50}$"
_SHAPE = re.compile(r"[0-9A-Za-z_]{3,50}")
_LOOKS_LIKE_MONEY = ("1", "3", "bc1", "lnbc1")


def check_username(name: str) -> str:
    """The name as given. Raises Invalid with the rule that it breaks."""
    if not _SHAPE.fullmatch(name):
        raise Invalid("A username has 3 to 50 of the characters 0-9, A-Z, a-z and _.", field="username")
    if not any(character.isalpha() for character in name):
        raise Invalid("A username has at least one letter.", field="username")
    if name.lower().startswith(_LOOKS_LIKE_MONEY):
        raise Invalid(
            "A username does not begin with 1, 3, bc1 or lnbc1: it could pass for an address.", field="username"
        )
    return name


def is_username(name: str) -> bool:
    """Whether anybody could be called so."""
    try:
        check_username(name)
    except Invalid:
        return False
    return True
