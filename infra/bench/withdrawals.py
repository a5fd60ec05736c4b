"""On chain: a crowd of withdrawals in batches, some that go alone, and what a user without a bank would do by hand.

A withdrawal is out when a query of the books sees it broadcast. Its time runs from its request. All are paid at one fee
rate, so what each costs differs by its size only.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from engine.domain.withdrawal.rules import WithdrawalRules, parse_rules
from infra.bench.bystander import foreign_address
from infra.bench.contest import Begin, Contest, Contestant, Work, Wrong, eventually, measured
from infra.bench.deposits import COMPONENTS, Bank
from infra.bench.figures import Goal
from infra.bench.http import Wire
from infra.bench.people import Person, expect
from infra.bench.report import Fact
from infra.bench.servers import FEE_RATE, Servers
from infra.bench.wallet import Outsider
from infra.local.bitcoin_rpc import HOT
from infra.local.chain.payer import satoshi

AMOUNT_SAT = 10_000
_CAP_SAT = 3_000
_WIRES = 16
_LOOK_EVERY_S = 0.1
_LIMIT_S = 300.0
_COINS = ((1_000_000, 60), (60_000, 130))
"""(amount in satoshi, how many): for batches, and for those that go alone."""
_SIZE = "size of a withdrawal"
_COST = "miner fee of a withdrawal"


@dataclass(frozen=True, slots=True)
class Size:
    """How many there are of each kind, in each round."""

    rounds: int
    crowd: int
    alone: int


WHOLE = Size(rounds=2, crowd=1_000, alone=100)
QUICK = Size(rounds=1, crowd=200, alone=20)


@dataclass(slots=True)
class Spent:
    """What withdrawals have cost so far."""

    count: int = 0
    vbytes: int = 0
    fee_sat: int = 0

    def facts(self, name: str) -> list[Fact]:
        """For one of them."""
        return [
            Fact(f"{_SIZE}, {name}", self.vbytes / max(1, self.count), "vB"),
            Fact(f"{_COST}, {name}", self.fee_sat / max(1, self.count), "sat"),
        ]


class Payouts(Contestant):
    """Withdrawals over the API, all at once, until a block has them. `alone`: each in a transaction of its own."""

    components = COMPONENTS

    def __init__(self, bank: Bank, count: int, *, alone: bool) -> None:
        self.name = f"{count:,} {'alone' if alone else 'together'}"
        self.spent = Spent()
        self._bank, self._count, self._alone = bank, count, alone
        self._wires = [Wire(bank.servers.stack.home.ports()["api-1"]) for _ in range(_WIRES)]

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - it takes what it takes
        await have_coins(self._bank)
        begin()
        began = time.monotonic()
        asked = await self._ask_all()
        await self._flush()
        took_ms = await self._follow(asked)
        elapsed_s = time.monotonic() - began
        await self._mine(list(asked))
        await self._note(list(asked))
        return measured(took_ms, elapsed_s)

    async def _ask_all(self) -> Mapping[str, float]:
        """Their ids, and when each was asked for."""
        asked: dict[str, float] = {}
        left = list(range(self._count))

        async def client(wire: Wire) -> None:
            while left:
                payer = self._bank.payees[left.pop() % len(self._bank.payees)]
                at = time.monotonic()
                asked[await self._ask(wire, payer)] = at

        async with asyncio.TaskGroup() as group:
            for wire in self._wires:
                group.create_task(client(wire))
        return asked

    async def _ask(self, wire: Wire, payer: Person) -> str:
        body = {
            "wallet_id": payer.wallet_id,
            "address": foreign_address(),
            "amount_sat": AMOUNT_SAT,
            "speed": "fast",
            "alone": self._alone,
            "max_fee_sat": _CAP_SAT,
        }
        headers = {"Authorization": f"Bearer {payer.key}", "Idempotency_Key": self._bank.people.new_key()}
        made = expect(await wire.ask("POST", "/v1/withdrawals", body, **headers), 202)
        return str(made["id"])

    async def _flush(self) -> None:
        """As an operator would: those that are left need not wait for their window."""
        key = f"Bearer {self._bank.servers.stack.environment()['MILLRACE_ADMIN_KEY']}"
        path = "/v1/admin/batchers/fast/flush"
        expect(await self._wires[0].ask("POST", path, {"reason": "the bench"}, Authorization=key), 202)

    async def _follow(self, asked: Mapping[str, float]) -> list[float]:
        """The milliseconds from the request of each until it was out. Raises Wrong."""
        took_ms: dict[str, float] = {}
        with suppress(TimeoutError):
            async with self._bank.servers.books() as connection, asyncio.timeout(_LIMIT_S):
                while len(took_ms) < len(asked):
                    rows = await connection.fetch(
                        "SELECT id FROM bank.withdrawals WHERE id = ANY($1) AND status IN ('broadcast', 'confirmed')",
                        [each for each in asked if each not in took_ms],
                    )
                    now = time.monotonic()
                    took_ms |= {row["id"]: 1000 * (now - asked[row["id"]]) for row in rows}
                    await asyncio.sleep(_LOOK_EVERY_S)
        if len(took_ms) < len(asked):
            raise Wrong(f"of {len(asked)} withdrawals {len(took_ms)} were broadcast within {_LIMIT_S:.0f} s")
        return list(took_ms.values())

    async def _mine(self, asked: Sequence[str]) -> None:
        await asyncio.to_thread(self._bank.outsider.mine)

        async def confirmed() -> bool:
            async with self._bank.servers.books() as connection:
                return bool(
                    await connection.fetchval(
                        "SELECT bool_and(status = 'confirmed') FROM bank.withdrawals WHERE id = ANY($1)", asked
                    )
                )

        await eventually(confirmed, "withdrawals to be confirmed", _LIMIT_S)

    async def _note(self, asked: Sequence[str]) -> None:
        """Their cost by the chain, and what their owners have paid. Raises Wrong when both do not agree."""
        async with self._bank.servers.books() as connection:
            rows = await connection.fetch(
                """SELECT wallet_id, paid_sat, miner_fee_sat, service_fee_msat, payout_id
                     FROM bank.withdrawals WHERE id = ANY($1)""",
                asked,
            )
            versions = await connection.fetch(
                "SELECT txid, fee_sat FROM bank.payout_versions WHERE payout_id = ANY($1) AND broadcast_at IS NOT NULL",
                list({row["payout_id"] for row in rows}),
            )
        numbers = {person.wallet_id: person.number for person in self._bank.people.everybody}
        for row in rows:
            paid_sat = row["paid_sat"] + row["miner_fee_sat"]
            self._bank.people.spent(numbers[row["wallet_id"]], 1000 * paid_sat + row["service_fee_msat"])
        fees, vbytes = 0, 0
        for version in versions:
            told = await asyncio.to_thread(_told, self._bank.outsider, version["txid"], HOT)
            if -satoshi(told["fee"]) != version["fee_sat"]:
                raise Wrong(f"{version['txid']} pays {told['fee']}, and the books say {version['fee_sat']} sat")
            fees += version["fee_sat"]
            vbytes += told["decoded"]["vsize"]
        shares = sum(row["miner_fee_sat"] for row in rows)
        if sum(row["paid_sat"] for row in rows) != AMOUNT_SAT * len(asked) or not 0 <= fees - shares <= fees // 10:
            raise Wrong(f"shares of {shares} sat do not make up the fees of {fees} sat")
        self.spent.count += len(asked)
        self.spent.vbytes += vbytes
        self.spent.fee_sat += fees

    async def check(self) -> None:
        await self._bank.people.check()
        await prove_hot(self._bank)


class ByHand(Contestant):
    """The same payments one by one from a wallet of bitcoind, at the same fee rate. Nobody books them."""

    components = ("bitcoind",)

    def __init__(self, bank: Bank, count: int) -> None:
        self.name = f"{count:,} by sendtoaddress"
        self.spent = Spent()
        self._bank, self._count = bank, count

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - it takes what it takes
        begin()
        took_ms: list[float] = []
        began = time.monotonic()
        for _ in range(self._count):
            start = time.monotonic()
            await asyncio.to_thread(self._pay)
            took_ms.append(1000 * (time.monotonic() - start))
        elapsed_s = time.monotonic() - began
        await asyncio.to_thread(self._bank.outsider.mine)
        return measured(took_ms, elapsed_s)

    def _pay(self) -> None:
        outsider = self._bank.outsider
        amount = f"{AMOUNT_SAT / 10**8:.8f}"
        words = (foreign_address(), amount, "", "", False, True, None, "unset", None, FEE_RATE // 1000)
        txid = outsider.call("sendtoaddress", *words, wallet=outsider.payer)
        told = _told(outsider, txid, outsider.payer)
        self.spent.count += 1
        self.spent.vbytes += told["decoded"]["vsize"]
        self.spent.fee_sat += -satoshi(told["fee"])

    async def check(self) -> None:
        """Nothing of ours has changed."""
        await self._bank.people.check()


@dataclass(slots=True)
class Crowds:
    """The contestants of a run, for the facts that their turns leave behind."""

    together: Payouts
    alone: Payouts
    by_hand: ByHand
    contest: Contest = field(init=False)

    def __post_init__(self) -> None:
        goals = [Goal(self.together.name, measure="whole"), Goal(self.together.name, self.alone.name, "cpu")]
        self.contest = Contest("withdrawals at once", "withdrawals/s", [self.together, self.alone, self.by_hand], goals)

    def facts(self) -> list[Fact]:
        """Size and fee of one withdrawal, and what batches save."""
        found = [each.spent.facts(each.name) for each in (self.together, self.alone, self.by_hand)]
        costs = [each[1].value for each in found]
        saved = [Fact("fee together, of the fee alone", costs[0] / costs[1], "×")]
        saved.append(Fact("fee together, of the fee by sendtoaddress", costs[0] / costs[2], "×"))
        return [fact for facts in found for fact in facts] + saved


def crowds(bank: Bank, size: Size) -> Crowds:
    """Together, alone and by hand."""
    return Crowds(
        Payouts(bank, size.crowd, alone=False), Payouts(bank, size.alone, alone=True), ByHand(bank, size.alone)
    )


def _told(outsider: Outsider, txid: str, wallet: str) -> dict[str, Any]:
    """What a wallet says of its own transaction, decoded."""
    include_watchonly, verbose = False, True
    told: dict[str, Any] = outsider.call("gettransaction", txid, include_watchonly, verbose, wallet=wallet)
    return told


async def read_rules(servers: Servers) -> WithdrawalRules:
    """The rulebook that is in force."""
    async with servers.books() as connection:
        query = "SELECT content::text FROM bank.rulebooks WHERE name = 'withdrawals' ORDER BY version DESC LIMIT 1"
        return parse_rules(json.loads(await connection.fetchval(query)))


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
        async with bank.servers.books() as connection:
            booked: int = await connection.fetchval(
                """SELECT coalesce(sum(e.amount), 0)::bigint FROM ledger.entries e
                     JOIN ledger.accounts a ON a.id = e.account_id WHERE a.code = 'asset:hot' AND e.layer = 0"""
            )
        return booked == 1000 * satoshi(balances["mine"]["trusted"])

    await eventually(agree, "books and bitcoind to agree about the hot wallet")
