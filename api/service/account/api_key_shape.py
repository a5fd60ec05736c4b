"""The shapes of an API key: what its maker orders, and what is shown of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, Field

from engine.domain.limit import Window
from engine.domain.money import Sat


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOrder:
    """A new API key."""

    name: str
    scopes: Sequence[str]
    expires_at: datetime | None = None
    spend_limit_sat: Mapping[Window, Sat] | None = None
    """The most that all its payments may come to, per window. None: as much as its account may."""


class KeyOut(BaseModel):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    spend_limit_sat: dict[Window, int] | None = Field(
        description="The most that all its payments may spend, per window."
    )
    made_by: str | None = Field(description="The key that made it. null: the bootstrap key, or unknown.")


class NewKeyOut(KeyOut):
    """A new API key, with its secret."""

    key: str | None = Field(description="Shown in the first answer only; null in a replay.")
