"""Books − bitcoind for the hot wallet, at one height: a single cut, in which nothing is asked and nothing repeated."""

from datetime import UTC, datetime

import asyncpg

from activities.reconciliation.coin import Asked, Matcher
from engine.bank.chain.cut import list_wallets, read_books
from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.rpc import Rpc
from engine.contracts.reconciliation import AccountComparison


async def compare_hot_wallets(conn: asyncpg.Connection, bitcoind_url: str) -> list[AccountComparison]:
    """The account of each wallet that is adopted. What is in flight, as deposits that are not booked yet, is taken out.

    Raises Unavailable when bitcoind is away.
    """
    rpc = Rpc(bitcoind_url)
    try:
        return [await _compare(conn, Bitcoind(rpc, wallet), wallet) for wallet in await list_wallets(conn)]
    finally:
        await rpc.close()


async def _compare(conn: asyncpg.Connection, bitcoind: Bitcoind, wallet: str) -> AccountComparison:
    cut = await bitcoind.read_coins()
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        books = await read_books(conn, wallet, cut.coins, datetime.fromtimestamp(0, UTC))
    return Matcher(cut, books, books.tip.height, Asked()).match().account
