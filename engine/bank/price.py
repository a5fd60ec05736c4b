"""What one bitcoin is worth in other currencies: every price that was ever set, append-only, in millionths.

Nothing is paid at these prices. Limits in other currencies are counted with them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from engine.ledger.database import Connection, Pool, translated

Reader: TypeAlias = "Connection | Pool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one bitcoin. `age_s` and `at` are by the database's clock."""

    currency: str
    price_micro: int
    source: str
    at: datetime
    age_s: int


async def add_price_in_tx(conn: Connection, currency: str, price_micro: int, source: str) -> None:
    """Set the price from the commit on, whatever earlier prices said."""
    with translated():
        await conn.execute(
            "INSERT INTO bank.prices(currency, price_micro, source) VALUES ($1, $2, $3)", currency, price_micro, source
        )


async def read_prices(conn: Reader, currencies: Collection[str]) -> dict[str, Price]:
    """The price of each of these currencies that has one, however old it is."""
    with translated():
        rows = await conn.fetch(
            """SELECT p.currency, p.price_micro, p.source, p.at,
                      extract(epoch FROM clock_timestamp() - p.at)::bigint AS age_s
                 FROM unnest($1::text[]) c(currency) CROSS JOIN LATERAL (
                      SELECT * FROM bank.prices WHERE currency = c.currency ORDER BY id DESC LIMIT 1) p""",
            list(currencies),
        )
    return {row["currency"]: Price(**row) for row in rows}
