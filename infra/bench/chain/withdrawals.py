"""On chain: a crowd of withdrawals in batches, some that go alone, and what a user without a bank would do by hand.

A withdrawal is out when a query of the books sees it broadcast. Its time runs from its request. All are paid at one fee
rate, so what each costs differs by its size only.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from infra.bench.chain.bystander import foreign_address
from infra.bench.chain.deposits import COMPONENTS, Bank
from infra.bench.chain.funds import have_coins, miner_fees_sat, prove_hot
from infra.bench.chain.spent import Spent, sent_by
from infra.bench.contest import Begin, Contestant, Work, Wrong, eventually, measured
from infra.bench.http import Wire
from infra.bench.people import Person, expect
from infra.local.bitcoin_rpc import HOT

AMOUNT_SAT = 10_000
_CAP_SAT = 3_000
_WIRES = 16
_LOOK_EVERY_S = 0.1
_LIMIT_S = 300.0


class Payouts(Contestant):
    """Withdrawals over the API, all at once, until a block has them. `alone`: each in a transaction of its own.

    A turn lasts until the last one is broadcast. The block that follows, and their confirmation, cost CPU and no time.
    """

    components = COMPONENTS

    def __init__(self, bank: Bank, count: int, *, alone: bool) -> None:
        self.name = f"{count:,} {'alone' if alone else 'together'}"
        self.spent = Spent()
        self.confirmed_s = 0.0
        """From the block until the last of the last turn was confirmed in the books."""
        self._bank, self._count, self._alone = bank, count, alone
        self._wires = [Wire(bank.servers.stack.home.ports()["api-1"]) for _ in range(_WIRES)]

    async def work(self, clients: int, seconds: float, begin: Begin) -> Work:  # noqa: ARG002 - it takes what it takes
        await have_coins(self._bank)
        ours_sat = await miner_fees_sat(self._bank)
        begin()
        began = time.monotonic()
        asked = await self._ask_all()
        await self._flush()
        took_ms = await self._follow(asked)
        elapsed_s = time.monotonic() - began
        await self._mine(list(asked))
        await self._note(list(asked), ours_sat)
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

        began = time.monotonic()
        await eventually(confirmed, "withdrawals to be confirmed", _LIMIT_S)
        self.confirmed_s = time.monotonic() - began

    async def _note(self, asked: Sequence[str], ours_sat: int) -> None:
        """Their cost by the chain, and what their owners have paid. Raises Wrong when both do not agree.

        Every address must have received its amount, and the fees must be the shares and what the bank has added.
        """
        async with self._bank.servers.books() as connection:
            rows = await connection.fetch(
                """SELECT wallet_id, address, paid_sat, miner_fee_sat, service_fee_msat, payout_id
                     FROM bank.withdrawals WHERE id = ANY($1)""",
                asked,
            )
            versions = await connection.fetch(
                """SELECT v.txid, v.fee_sat FROM bank.payouts p
                     JOIN bank.payout_versions v ON v.payout_id = p.id AND v.number = p.confirmed_version
                    WHERE p.id = ANY($1)""",
                list({row["payout_id"] for row in rows}),
            )
        numbers = {person.wallet_id: person.number for person in self._bank.people.everybody}
        for row in rows:
            paid_sat = row["paid_sat"] + row["miner_fee_sat"]
            self._bank.people.spent(numbers[row["wallet_id"]], 1000 * paid_sat + row["service_fee_msat"])
        fees, vbytes = 0, 0
        received: Counter[str] = Counter()
        for version in versions:
            sent = await asyncio.to_thread(sent_by, self._bank.outsider, version["txid"], HOT)
            if sent.fee_sat != version["fee_sat"]:
                raise Wrong(f"{version['txid']} pays {sent.fee_sat} sat, and the books say {version['fee_sat']}")
            fees += sent.fee_sat
            vbytes += sent.vbytes
            received.update(sent.paid_sat)
        if any(received[row["address"]] != row["paid_sat"] or row["paid_sat"] != AMOUNT_SAT for row in rows):
            raise Wrong("somebody has not received what was asked for, or more")
        shares, ours = sum(row["miner_fee_sat"] for row in rows), await miner_fees_sat(self._bank) - ours_sat
        if shares + ours != fees:
            raise Wrong(f"shares of {shares} sat and {ours} sat of the bank do not make up the fees of {fees} sat")
        self.spent.count += len(asked)
        self.spent.vbytes += vbytes
        self.spent.fee_sat += fees

    async def check(self) -> None:
        await self._bank.people.check()
        await prove_hot(self._bank)
