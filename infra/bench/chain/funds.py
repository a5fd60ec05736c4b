"""Coins and rules of withdrawals, and the proof that books and wallet agree about them."""

import asyncio
import json
import secrets

from engine.domain.withdrawal.rules import WithdrawalRules, parse_rules
from infra.bench.chain.deposits import Bank
from infra.bench.contest import eventually
from infra.bench.http import Wire
from infra.bench.people import expect
from infra.bench.servers import Servers
from infra.local.bitcoin_rpc import HOT
from infra.local.chain.payer import satoshi

_COINS = ((1_000_000, 60), (60_000, 130))
"""(amount in satoshi, how many): for batches, and for those that go alone."""
_LIMIT_S = 300.0


async def have_coins(bank: Bank) -> None:
    """Deposits of several sizes, all credited: the bank's coins to pay with. Everybody gets one of the largest."""
    wire = Wire(bank.servers.stack.home.ports()["api-1"])
    deposited: list[str] = []
    for amount_sat, count in _COINS:
        owners: dict[str, int] = {}
        for number in range(count):
            person = bank.payees[number % len(bank.payees)]
            body = {"wallet_id": person.wallet_id}
            key = {"Authorization": f"Bearer {person.key}", "Idempotency_Key": secrets.token_hex(8)}
            owners[expect(await wire.ask("POST", "/v1/addresses", body, **key))["address"]] = person.number
        crowd = await asyncio.to_thread(bank.outsider.sign, owners, amount_sat)
        await bank.broadcast(crowd)
        deposited += crowd.txids
        for owner in owners.values():
            bank.people.received(owner, 1000 * amount_sat)
    wire.close()
    await asyncio.to_thread(bank.outsider.mine, 6)

    async def credited() -> bool:
        async with bank.servers.books() as connection:
            query = "SELECT count(*) FROM bank.deposits WHERE txid = ANY($1) AND status = 'credited'"
            found: int = await connection.fetchval(query, deposited)
        return found == sum(count for _amount_sat, count in _COINS)

    await eventually(credited, "the bank's coins", _LIMIT_S)


async def prove_hot(bank: Bank) -> None:
    """Raises Wrong unless the books have in the hot wallet what bitcoind has in it."""

    async def agree() -> bool:
        balances = await asyncio.to_thread(bank.outsider.call, "getbalances", wallet=HOT)
        return await _settled_msat(bank, "asset:hot") == 1000 * satoshi(balances["mine"]["trusted"])

    await eventually(agree, "books and bitcoind to agree about the hot wallet")


async def miner_fees_sat(bank: Bank) -> int:
    """What the bank itself has paid miners for payouts so far."""
    return await _settled_msat(bank, "exp:miner:withdraw") // 1000


async def _settled_msat(bank: Bank, code: str) -> int:
    async with bank.servers.books() as connection:
        booked: int = await connection.fetchval(
            """SELECT coalesce(sum(e.amount), 0)::bigint FROM ledger.entries e
                 JOIN ledger.accounts a ON a.id = e.account_id WHERE a.code = $1 AND e.layer = 0""",
            code,
        )
    return booked


async def read_rules(servers: Servers) -> WithdrawalRules:
    """The rulebook that is in force."""
    async with servers.books() as connection:
        query = "SELECT content::text FROM bank.rulebooks WHERE name = 'withdrawals' ORDER BY version DESC LIMIT 1"
        return parse_rules(json.loads(await connection.fetchval(query)))
