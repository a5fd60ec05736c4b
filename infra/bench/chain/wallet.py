"""What the bench does on chain: payments to very many addresses at once, and a hot wallet with very many of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.rpc import Rpc
from engine.domain import bech32
from infra.bench.contest import Wrong
from infra.bench.people import Person
from infra.bench.servers import Servers
from infra.local.bitcoin_rpc import HOT, MINER
from infra.local.chain.payer import Sent
from infra.local.chain.regtest import Regtest

TRANSACTIONS = 4
"""So many pay a crowd. A transaction that is relayed has at most some 3,200 outputs."""
_FEE_RATE = 3
_AT_ONCE = 1000
_WINDOW = 1000
"""The wallet watches so many addresses beyond the last one that it made."""
_LIMIT_S = 600
_UNSYNCED = "unsafesqlitesync=1\n"

_GIVE = """
INSERT INTO bank.addresses(address, hd_index, made_height, wallet_id, account_id, purpose, given_at)
SELECT m.address, m.hd_index, c.tip_height, o.wallet_id, o.account_id, 'api', clock_timestamp()
  FROM unnest($1::text[], $2::int[]) m(address, hd_index), bank.chains c,
       unnest($3::text[], $4::text[]) WITH ORDINALITY o(wallet_id, account_id, place)
 WHERE c.wallet = $5 AND o.place = 1 + m.hd_index % cardinality($3)"""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Very many payments in a few transactions, signed and not broadcast."""

    sent: Sequence[Sent]
    owners: Mapping[str, int]

    @property
    def txids(self) -> list[str]:
        """Of its transactions."""
        return [each.txid for each in self.sent]

    @property
    def size(self) -> int:
        """How many deposits it makes."""
        return sum(len(each.payments) for each in self.sent)


class Outsider(Regtest):
    """The miner, who also signs payments that nobody sees before their block."""

    def __init__(self, servers: Servers) -> None:
        super().__init__(servers.stack.bitcoin, MINER)
        self._promised: set[tuple[str, int]] = set()

    def sign(self, owners: Mapping[str, int], amount_sat: int) -> Crowd:
        """A few transactions that pay this to each address. None is broadcast, and no coin is in two of them."""
        payments = [(address, amount_sat) for address in owners]
        size = -(-len(payments) // TRANSACTIONS)
        return Crowd([self._sign_one(payments[at : at + size]) for at in range(0, len(payments), size)], owners)

    def _sign_one(self, payments: Sequence[tuple[str, int]]) -> Sent:
        coins = self._choose(sum(amount_sat for _, amount_sat in payments))
        self._promised |= {(coin.txid, coin.vout) for coin in coins}
        content = self._signed(coins, self._outputs(payments), _FEE_RATE)
        txid = str(self.call("decoderawtransaction", content)["txid"])
        return Sent(txid, 0, content, coins, tuple(payments))

    def script(self, address: str) -> bytes:
        """What an output to this bech32 address says. It is worked out here: thousands of calls would take seconds."""
        _, words = bech32.read(address)
        program = bech32.to_bytes(words[1:])
        return bytes([words[0], len(program)]) + program

    def _unspent(self) -> Iterable[dict[str, Any]]:
        return [each for each in super()._unspent() if (each["txid"], each["vout"]) not in self._promised]


async def give_addresses(servers: Servers, owners: Sequence[Person], count: int) -> float:
    """Make addresses until the books have so many, and give all of them to these users. Returns the seconds it took.

    The wallet makes each of them as it makes those of the pool, so it has as much to remember. bitcoind is restarted
    before and after: meanwhile it does not wait for the disk, which would take most of the time.
    """
    began = time.monotonic()
    wallets, accounts = zip(*[(person.wallet_id, person.account_id) for person in owners], strict=True)
    async with servers.books() as connection:
        made: int = await connection.fetchval("SELECT count(*) FROM bank.addresses")
        async with _in_haste(servers) as hot:
            await asyncio.to_thread(_widen, Regtest(servers.stack.bitcoin, MINER), count)
            while made < count:
                new = await hot.make_addresses(min(_AT_ONCE, count - made), "bech32")
                indices = [each.hd_index for each in new]
                texts = [each.address for each in new]
                await connection.execute(_GIVE, texts, indices, wallets, accounts, HOT, timeout=_LIMIT_S)
                made += len(new)
        await connection.execute("ANALYZE bank.addresses", timeout=_LIMIT_S)
    return time.monotonic() - began


async def list_owners(servers: Servers, owners: Sequence[Person], count: int) -> Mapping[str, int]:
    """So many addresses of these users, each with its owner's number. Raises Wrong when there are fewer."""
    async with servers.books() as connection:
        rows = await connection.fetch(
            "SELECT address, wallet_id FROM bank.addresses WHERE wallet_id = ANY($1) ORDER BY hd_index DESC LIMIT $2",
            [person.wallet_id for person in owners],
            count,
        )
    if len(rows) != count:
        raise Wrong(f"the users have {len(rows)} addresses and must have {count}")
    numbers = {person.wallet_id: person.number for person in owners}
    return {row["address"]: numbers[row["wallet_id"]] for row in rows}


@asynccontextmanager
async def _in_haste(servers: Servers) -> AsyncIterator[Bitcoind]:
    """The hot wallet, which for the length of the block does not wait for the disk."""
    stack = servers.stack
    settings = stack.home.folder / "bitcoind" / "bitcoin.conf"
    usual = await asyncio.to_thread(settings.read_text)
    await restart_bitcoind(servers, usual + _UNSYNCED)
    rpc = Rpc(stack.environment()["MILLRACE_BITCOIND_URL"])
    try:
        yield Bitcoind(rpc, HOT)
    finally:
        await rpc.close()
        await restart_bitcoind(servers, usual)


async def restart_bitcoind(servers: Servers, settings: str | None = None) -> None:
    """Restart it in good order, with other settings if there are any; it serves when this returns."""

    def restart() -> None:
        with servers.stack.held("bitcoind"):
            if settings is not None:
                (servers.stack.home.folder / "bitcoind" / "bitcoin.conf").write_text(settings)

    await asyncio.to_thread(restart)


def _widen(node: Regtest, count: int) -> None:
    """Have the wallet derive its keys in one call: one by one takes longer. Raises Wrong."""
    listed = node.rpc(HOT).call("listdescriptors", private=True)["descriptors"]
    (own,) = [each for each in listed if each["active"] and not each["internal"] and each["desc"].startswith("wpkh(")]
    wider = {
        "desc": own["desc"],
        "active": True,
        "internal": False,
        "range": [0, max(own["range"][1], count + _WINDOW)],
        "next_index": own["next_index"],
        "timestamp": "now",
    }
    (done,) = node.call("importdescriptors", [wider], wallet=HOT)
    if not done["success"]:
        raise Wrong(f"the wallet does not watch {count} addresses: {done}")
