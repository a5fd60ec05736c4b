"""Accounts as operators see them: found, locked and unlocked, given another level, closed.

    active     everything
    locked     reads, makes invoices and receives; sends nothing. Payments in flight end as usual
    closed     reads; final

Nobody changes his own account, with any of his keys or of the keys that come from them. The bootstrap key has no
account, so it can. Each change leaves a line in the audit trail, in its own transaction.
"""

from datetime import datetime

from pydantic import BaseModel, Field

from api.http.codes import Forbidden
from api.service.auth import Caller, still_may_in_tx
from api.service.resources import Resources
from api.service.role import MAY
from api.service.wallet.wallet import WalletOut
from engine.bank.account.account_status import Status, change_in_tx
from engine.bank.account.api_key import comes_from_account
from engine.bank.audit import record_in_tx
from engine.domain.errors import no_such
from engine.domain.ids import AccountId, ApiKeyId
from engine.domain.page import START, Position, Slice
from engine.ledger.database import transaction
from engine.views import account


class OperatorAccountOut(BaseModel):
    """A user of the bank, with what is in its wallet."""

    id: str = Field(examples=["acct_4t7q2v6x1b0n8r5d01k5y8z3c"])
    username: str | None
    external_id: str | None
    level: int
    status: Status
    wallets: list[WalletOut]
    created_at: datetime


async def search_accounts(
    resources: Resources, caller: Caller, wanted: account.AccountFilter, *, after: Position = START, limit: int
) -> Slice[OperatorAccountOut]:
    """One page, newest first."""
    caller.require_role(*MAY["find accounts"])
    async with resources.reading() as conn:
        found = await account.search_accounts(conn, wanted, after, limit)
    return found.map(_shown)


async def show_account(resources: Resources, caller: Caller, account_id: str) -> OperatorAccountOut:
    """One account, whatever its status. Raises NotFound."""
    caller.require_role(*MAY["find accounts"])
    return await _read(resources, AccountId(account_id))


async def change_account(
    resources: Resources,
    caller: Caller,
    account_id: str,
    *,
    status: Status | None = None,
    level: int | None = None,
    note: str | None = None,
) -> OperatorAccountOut:
    """Lock, unlock or close the account, or change its level. A repeat changes nothing.

    Raises NotFound, Forbidden (`own_account`), Refused (`account_closed`, `account_not_empty`).
    """
    caller.require_role(*MAY["lock accounts"])
    if (level is not None or status == "closed") and not caller.has_role(*MAY["close accounts and set levels"]):
        raise Forbidden("Levels and closing need a key with the scope 'admin'.", scope="admin")
    changed = AccountId(account_id)
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        if await comes_from_account(conn, ApiKeyId(caller.key_id), changed):
            raise Forbidden("You cannot change your own account: another operator must.", code="own_account")
        for change in await change_in_tx(conn, changed, status=status, level=level):
            await record_in_tx(conn, caller.act(change.action, account_id=changed, note=note, **change.detail))
    return await _read(resources, changed)


async def _read(resources: Resources, account_id: AccountId) -> OperatorAccountOut:
    async with resources.reading() as conn:
        row = await account.find_account_row(conn, account_id)
    if row is None:
        raise no_such("account")
    return _shown(row)


def _shown(row: account.AccountRow) -> OperatorAccountOut:
    wallet = WalletOut(
        id=row.wallet_id,
        account_id=row.id,
        currency=row.currency,
        available_msat=row.balance_msat - row.held_msat,
        held_msat=row.held_msat,
        incoming_msat=row.incoming_msat,
        balance_msat=row.balance_msat,
    )
    return OperatorAccountOut(
        id=row.id,
        username=row.username,
        external_id=row.external_id,
        level=row.level,
        status=row.status,
        wallets=[wallet],
        created_at=row.created_at,
    )
