"""Wallets of an account: what each holds now."""

from dataclasses import asdict

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.resources import Resources
from engine.bank.account.account import Wallet
from engine.domain.errors import no_such
from engine.domain.ids import AccountId
from engine.ledger.database import Connection
from engine.views.wallet import WalletBalance, find_wallet, read_balance, read_balances


class WalletOut(BaseModel):
    """A wallet. `balance = available + held`; incoming money does not belong to it yet."""

    id: str = Field(examples=["wal_01k5y8z3c9m4t7q2v6x1b0n8r5d"])
    account_id: str
    currency: str = Field(examples=["BTC"])
    available_msat: int = Field(description="What can be spent now.", examples=[1_250_000])
    held_msat: int = Field(description="Held for payments in flight.", examples=[0])
    incoming_msat: int = Field(description="Announced, not confirmed.", examples=[0])
    balance_msat: int = Field(examples=[1_250_000])


async def list_own_wallets(resources: Resources, caller: Caller) -> list[WalletOut]:
    """All wallets of the caller's account."""
    caller.require("read")
    async with resources.reading() as conn:
        return await read_wallets(conn, caller.account_id)


async def show_wallet(resources: Resources, caller: Caller, wallet_id: str) -> WalletOut:
    """One wallet of the caller's account. Raises NotFound."""
    caller.require("read")
    async with resources.reading() as conn:
        return _shown(await read_balance(conn, await own_wallet(conn, caller.account_id, wallet_id)))


async def own_wallet(conn: Connection, account_id: AccountId, wallet_id: str) -> Wallet:
    """The wallet, if it belongs to this account. Raises NotFound otherwise, whoever owns it."""
    wallet = await find_wallet(conn, account_id, wallet_id)
    if wallet is None:
        raise no_such("wallet")
    return wallet


async def read_wallets(conn: Connection, account_id: AccountId) -> list[WalletOut]:
    """All wallets of the account."""
    return [_shown(wallet) for wallet in await read_balances(conn, account_id)]


def _shown(wallet: WalletBalance) -> WalletOut:
    return WalletOut(**asdict(wallet))
