"""Deposits at the shared stack, as its users see them over the API."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx

from infra.local.bitcoin_rpc import HOT
from infra.local.chain.payer import Sent
from infra.local.chain.regtest import Regtest
from infra.local.home import NODES
from infra.local.outside import sync_network
from infra.local.parts.store import Failed
from tests.fixtures.stack import Account, Bank, Json, eventually

_LIMIT_S = 90
_NOT_BOOKED = """SELECT coalesce(sum(amount_sat), 0) FROM bank.deposits
    WHERE sight = 'mined' AND conf_ref IS NULL AND NOT coinbase"""
_HOT = """SELECT coalesce(sum(e.amount), 0) FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
    WHERE a.code = 'asset:hot' AND e.layer = 0"""


async def pay(bank: Bank, user: Account, amount_sat: int) -> Sent:
    """To a new address of this user, into the mempool."""

    async def given() -> Json | None:
        try:
            answer = await user.post("/v1/addresses", {"wallet_id": user.wallet_id})
        except httpx.TransportError:  # the API is away
            return None
        assert answer.status_code in {201, 503}, answer.text
        return answer.json() if answer.status_code == 201 else None

    address = (await eventually(given, "an address"))["address"]
    return await asyncio.to_thread(bank.stack.chain().pay, address, amount_sat)


async def shows(user: Account, status: str, available_msat: int = 0, incoming_msat: int = 0) -> None:
    """Wait until the user's deposits and balances are these, whatever is away meanwhile."""
    wanted = ({status}, available_msat, incoming_msat)
    found: object = None

    async def look() -> bool | None:
        nonlocal found
        try:
            answers = await user.get("/v1/deposits"), await user.get(f"/v1/wallets/{user.wallet_id}")
        except httpx.TransportError:
            return None
        if any(each.status_code != 200 for each in answers):
            return None
        deposits, wallet = (each.json() for each in answers)
        found = ({each["status"] for each in deposits["items"]}, wallet["available_msat"], wallet["incoming_msat"])
        return True if found == wanted else None

    try:
        await eventually(look, "the deposit", limit_s=_LIMIT_S)
    except AssertionError:
        raise AssertionError(f"{found}, and not {wanted}") from None


def strike(bank: Bank, chain: Regtest, *names: str) -> None:
    """SIGKILL all of these at the same moment. Nobody waits for them to be back."""
    with chain.at_rest():
        pids = [bank.stack.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


async def all_back(bank: Bank) -> None:
    """Wait until every process of the stack is ready."""

    async def look() -> bool | None:
        processes = (await asyncio.to_thread(bank.stack.home.read_state)).processes
        return True if all(each.state == "ready" for each in processes.values()) else None

    await eventually(look, "all processes to be back", limit_s=_LIMIT_S)


@asynccontextmanager
async def proved(bank: Bank) -> AsyncIterator[None]:
    """After the block the Lightning nodes have the chain, and asset:hot is what bitcoind has, to the satoshi."""
    yield
    await all_back(bank)
    try:
        await sync_network(bank.stack)
    except Failed:  # seen: LND stands still when bitcoind dies in the middle of a reorganisation, until it is restarted
        await bank.kill(*NODES)
        await sync_network(bank.stack)
    hot = bank.stack.bitcoin(HOT)

    async def agreed() -> bool | None:
        coins = await asyncio.to_thread(hot.call, "listunspent", 1)
        has_sat = sum(int(Decimal(str(coin["amount"])) * 10**8) for coin in coins)
        books_msat = int(await bank.database.fetchval(_HOT))
        waits_sat = int(await bank.database.fetchval(_NOT_BOOKED))
        tip = await asyncio.to_thread(bank.stack.bitcoin().call, "getbestblockhash")
        is_there = tip == await bank.database.fetchval("SELECT tip_hash FROM bank.chains")
        return True if is_there and books_msat == 1000 * (has_sat - waits_sat) else None

    await eventually(agreed, "asset:hot to agree with bitcoind", limit_s=_LIMIT_S)
