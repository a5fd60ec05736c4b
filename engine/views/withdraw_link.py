"""The withdraw links of an account, page by page."""

from engine.bank.withdraw_link.link import COLUMNS, WithdrawLink
from engine.domain.ids import AccountId
from engine.domain.page import Position, Slice
from engine.ledger.database import Connection
from engine.views.page import Listing

_LINKS = Listing(columns=COLUMNS, source="bank.withdraw_links", condition="account_id = $1")


async def list_links(conn: Connection, account_id: AccountId, after: Position, limit: int) -> Slice[WithdrawLink]:
    """One page of the account's links, newest first."""
    found = await _LINKS.read(conn, after, limit, account_id)
    return found.map(lambda row: WithdrawLink(**row))
