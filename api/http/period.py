"""Times in queries: RFC 3339 with a zone, within years that make sense, and periods [from, to) that go forward."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from engine.domain.errors import Invalid

_FIRST_YEAR, _LAST_YEAR = 2000, 2999
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _is_rfc_3339(value: object) -> object:
    if isinstance(value, str) and not _RFC_3339.fullmatch(value):
        raise ValueError("a time in RFC 3339 with a time zone, as in 2026-01-31T00:00:00Z ('+' is %2B in a query)")
    return value


def _makes_sense(value: datetime) -> datetime:
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"a year from {_FIRST_YEAR} to {_LAST_YEAR}")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_is_rfc_3339), AfterValidator(_makes_sense)]
"""A moment, to the microsecond."""


class Period(BaseModel):
    """From a moment on (inclusive) until another (exclusive)."""

    model_config = ConfigDict(extra="forbid")

    begins_at: Instant | None = Field(
        default=None,
        alias="from",
        description="Begin of the period (inclusive), RFC 3339.",
        examples=["2026-01-01T00:00:00Z"],
    )
    ends_at: Instant | None = Field(
        default=None,
        alias="to",
        description="End of the period (exclusive), RFC 3339.",
        examples=["2026-02-01T00:00:00Z"],
    )

    def check(self) -> None:
        """Raises Invalid when the period ends before it begins."""
        if self.begins_at is not None and self.ends_at is not None and self.begins_at > self.ends_at:
            raise Invalid("'from' is later than 'to'.", field="from")
