"""Accounts: open one, and show the caller's own. An account's bitcoin wallet is opened with it."""

from dataclasses import asdict, dataclass
from datetime import datetime

from pydantic import BaseModel, Field

from api.service.auth import Caller, still_may_in_tx
from api.service.idempotency import Intent, Outcome, once
from api.service.resources import Resources
from api.service.role import MAY
from api.service.wallet.wallet import WalletOut, read_wallets
from engine.bank.account.account import NewAccount, find_account, open_bank_account_in_tx
from engine.bank.audit import record_in_tx
from engine.domain.errors import InvariantBroken
from engine.domain.ids import AccountId, new_id
from engine.domain.username import check_username
from engine.ledger.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOrder:
    """An account to be opened."""

    username: str | None = None
    external_id: str | None = None
    level: int = 0
    """Which limits apply."""


class AccountOut(BaseModel):
    """A user of the bank."""

    id: str = Field(examples=["acct_4t7q2v6x1b0n8r5d01k5y8z3c"])
    username: str | None
    external_id: str | None
    level: int
    status: str = Field(description="active, locked or closed")
    wallets: list[WalletOut]
    created_at: datetime


async def open_account(
    resources: Resources, caller: Caller, order: AccountOrder, *, key: str | None, body_hash: bytes
) -> Outcome[AccountOut]:
    """Open the account with its wallet, or find the one that was opened with this key.

    Raises Invalid for a bad username, Conflict (`username_taken`, `external_id_taken`).
    """
    caller.require_role(*MAY["open accounts"])
    if order.username is not None:
        check_username(order.username)
    new = NewAccount(
        id=AccountId(new_id("acct")), username=order.username, external_id=order.external_id, level=order.level
    )

    async def make(conn: Connection) -> None:
        await still_may_in_tx(conn, caller)
        await open_bank_account_in_tx(conn, new)
        facts = {name: value for name, value in asdict(order).items() if value is not None}
        await record_in_tx(conn, caller.act("account.open", account_id=new.id, **facts))

    made = await once(resources, Intent(owner=caller.owner, key=key, body_hash=body_hash), new.id, make)
    return Outcome(await _read(resources, AccountId(made.content)), is_replay=made.is_replay)


async def show_own_account(resources: Resources, caller: Caller) -> AccountOut:
    """The caller's own account."""
    caller.require("read")
    return await _read(resources, caller.account_id)


async def _read(resources: Resources, account_id: AccountId) -> AccountOut:
    async with resources.reading() as conn:
        account = await find_account(conn, account_id)
        if account is None:
            raise InvariantBroken(f"there is no account {account_id}")
        return AccountOut(**asdict(account), wallets=await read_wallets(conn, account_id))
