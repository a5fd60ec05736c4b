"""Pages of a list that is ordered newest first: a page begins after the position of the last row of the page before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")
U = TypeVar("U")

Position: TypeAlias = tuple[datetime | None, str | None]
"""The time and the key by which a row is ordered."""
START: Position = (None, None)
"""Before the first row."""
MAX_LIMIT = 100
"""The most rows on one page."""


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """The rows of one page."""

    rows: Sequence[T]
    following: Position | None
    """The next page begins after this position. None: there is no next page."""

    def map(self, shown: Callable[[T], U]) -> "Slice[U]":
        """The same page with each row in another form."""
        return Slice([shown(row) for row in self.rows], self.following)


def cut(rows: Sequence[T], limit: int, position: Callable[[T], Position]) -> Slice[T]:
    """The page out of `limit + 1` rows: the row beyond the limit tells that another page follows."""
    page = rows[:limit]
    return Slice(page, position(page[-1]) if len(rows) > limit else None)
