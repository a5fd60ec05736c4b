"""How the content of a rulebook is read, value by value. Each deviation is an Invalid that names its place."""

from collections.abc import Mapping
from typing import Any, cast

from engine.domain.errors import Invalid


def read_object(value: object, place: str) -> Mapping[str, Any]:
    """An object, with any names. Raises Invalid."""
    if not isinstance(value, dict):
        raise wrong(place, "must be an object")
    return cast("Mapping[str, Any]", value)


def read_whole(value: object, place: str, least: int, most: int, unit: str = "") -> int:
    """A whole number within these bounds; neither JSON's true nor 1.0 counts as 1. Raises Invalid."""
    if type(value) is not int or not least <= value <= most:
        raise wrong(place, f"must be a whole number {f'of {unit} ' if unit else ''}from {least} to {most}")
    return value


def check_names(given: Mapping[str, Any], known: set[str], place: str) -> None:
    """Raises Invalid for a name that is not known. A stranger sent it, so it is cut to what can be shown."""
    for name in given:
        if name not in known:
            raise wrong(f"{place}.{name}"[:200], f"is not known; there are {', '.join(sorted(known))}")


def wrong(place: str, why: str) -> Invalid:
    """The refusal of what stands at this place."""
    return Invalid(f"{place} {why}.", field=place)
