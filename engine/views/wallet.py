"""Wallets with what they hold. The wallet's row is the bank's; its balance is in the books."""

from dataclasses import dataclass

from engine.bank.account.account import Wallet, list_wallets
from engine.domain.ids import AccountId, WalletId
from engine.ledger.database import Connection, translated
from engine.views.balance import get_balance


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletBalance:
    """A wallet now, in msat: balance = available + held. Incoming money is promised, and not part of the balance."""

    id: WalletId
    account_id: AccountId
    currency: str
    available_msat: int
    held_msat: int
    incoming_msat: int
    balance_msat: int


async def find_wallet(conn: Connection, account_id: AccountId, wallet_id: str) -> Wallet | None:
    """The wallet, if it belongs to this account."""
    with translated():
        row = await conn.fetchrow(
            """SELECT id, account_id, currency, ledger_account_id FROM bank.wallets
                WHERE id = $1 AND account_id = $2""",
            wallet_id,
            account_id,
        )
    return None if row is None else Wallet(**row)


async def read_balance(conn: Connection, wallet: Wallet) -> WalletBalance:
    """What this wallet holds now."""
    balance = await get_balance(conn, wallet.ledger_account_id)
    return WalletBalance(
        id=wallet.id,
        account_id=wallet.account_id,
        currency=wallet.currency,
        available_msat=balance.available_msat,
        held_msat=balance.held_out_msat,
        incoming_msat=balance.incoming_msat,
        balance_msat=balance.available_msat + balance.held_out_msat,
    )


async def read_balances(conn: Connection, account_id: AccountId) -> list[WalletBalance]:
    """All wallets of the account with what they hold, the oldest first."""
    return [await read_balance(conn, wallet) for wallet in await list_wallets(conn, account_id)]
