"""The addresses of an account, one by one or page by page."""

from collections.abc import Mapping
from typing import Any

from engine.bank.chain.address import COLUMNS
from engine.domain.ids import AccountId
from engine.ledger.database import Pool, translated
from engine.views.page import Listing

ADDRESSES = Listing(
    columns=COLUMNS,
    source="bank.addresses",
    condition="account_id = $1 AND wallet_id IS NOT NULL",
    time="given_at",
    key="address",
)
"""The addresses of an account, newest first."""


async def find_address(pool: Pool, account_id: AccountId, address: str) -> Mapping[str, Any] | None:
    """The address, if it was given to this account."""
    with translated():
        row = await pool.fetchrow(
            f"SELECT {COLUMNS} FROM bank.addresses WHERE address = $1 AND account_id = $2",  # noqa: S608 - constant
            address,
            account_id,
        )
    return None if row is None else dict(row)
