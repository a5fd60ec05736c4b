"""Withdrawals of a `HotBank`: asked for as the API does, and waited for by their rows.

out = Withdrawer(hot)
await out.set_rules(window_s=0)
asked = await out.ask(alice, address, 50_000)
await out.reaches(asked, "broadcast")
"""

import asyncio
import itertools
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg
from temporalio.client import WorkflowHandle

from engine.contracts.batcher import Batcher, batcher_start
from engine.contracts.withdrawal import WithdrawalRequest, withdrawal_start
from engine.contracts.workflow_start import start_workflow
from engine.domain.ids import WithdrawalId, id_for_key
from engine.domain.money import Sat
from engine.domain.withdrawal.script import output_script
from engine.domain.withdrawal.withdrawal import FeeFrom, Speed
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import WALLET, Depositor

_keys = itertools.count(1)
_LIMIT_S = 45


@dataclass(frozen=True)
class Asked:
    """A withdrawal that somebody has asked for."""

    id: WithdrawalId
    address: str
    workflow: WorkflowHandle[Any, Any]


class Withdrawer:
    """Asks in the name of users, and reads what became of it."""

    def __init__(self, hot: HotBank) -> None:
        self.hot, self.pool, self.chain = hot, hot.pool, hot.chain

    async def set_rules(self, *, window_s: int = 0, **more: Any) -> None:
        """A version of the rulebook with this window, in which other values may be replaced at the top."""
        content = json.loads(
            await self.pool.fetchval(
                "SELECT content::text FROM bank.rulebooks WHERE name = 'withdrawals' ORDER BY version DESC LIMIT 1"
            )
        )
        for speed in content["speeds"].values():
            speed["window_s"] = window_s
        content |= more
        await self.pool.execute(
            """INSERT INTO bank.rulebooks(name, version, content, note, set_by)
               SELECT 'withdrawals', max(version) + 1, $1, 'a test', 'test'
                 FROM bank.rulebooks WHERE name = 'withdrawals'""",
            content,
        )

    async def foreign(self) -> str:
        """An address of somebody else."""
        return await asyncio.to_thread(self.chain.address, self.chain.payer)

    async def ask(
        self,
        user: Depositor,
        amount_sat: int | None,
        *,
        address: str | None = None,
        fee_from: FeeFrom = "balance",
        max_fee_sat: int | None = 10_000,
        alone: bool = False,
        unlinked: bool = False,
        speed: Speed = Speed.FAST,
        key: str | None = None,
    ) -> Asked:
        address = address or await self.foreign()
        key = key or f"key-{next(_keys)}-{id(self)}"
        request = WithdrawalRequest(
            withdrawal_id=WithdrawalId(id_for_key("wd", user.id, key)),
            account_id=user.id,
            wallet_id=user.wallet_id,
            idempotency_key=key,
            body_hash="ab" * 32,
            hot_wallet=WALLET,
            address=address,
            script=output_script(address).hex(),
            amount_sat=None if amount_sat is None else Sat(amount_sat),
            fee_from=fee_from,
            speed=speed,
            alone=alone,
            unlinked=unlinked,
            max_fee_sat=None if max_fee_sat is None else Sat(max_fee_sat),
            fee_cap_sat=Sat(5_000),
            wait_for_unlinked=True,
        )
        temporal = await self.hot.temporal()
        handle = await start_workflow(temporal, withdrawal_start(request))
        asked = Asked(request.withdrawal_id, address, handle)
        await eventually(lambda: self.find(asked), "the withdrawal's row", limit_s=_LIMIT_S)
        return asked

    async def find(self, asked: Asked) -> asyncpg.Record | None:
        return await self.pool.fetchrow(
            """SELECT w.*, v.txid FROM bank.withdrawals w LEFT JOIN bank.payouts p ON p.id = w.payout_id
                 LEFT JOIN LATERAL (SELECT txid FROM bank.payout_versions v WHERE v.payout_id = p.id
                                     ORDER BY v.number = p.confirmed_version DESC NULLS LAST, v.number DESC
                                     LIMIT 1) v ON true
                WHERE w.id = $1""",
            asked.id,
        )

    async def row(self, asked: Asked) -> asyncpg.Record:
        found = await self.find(asked)
        assert found is not None
        return found

    async def reaches(self, asked: Asked, status: str) -> asyncpg.Record:
        """Wait until it has this status."""
        found: asyncpg.Record | None = None

        async def look() -> asyncpg.Record | None:
            nonlocal found
            found = await self.row(asked)
            return found if found["status"] == status else None

        try:
            return await eventually(look, status, limit_s=_LIMIT_S)
        except AssertionError:
            problems = await self.pool.fetch("SELECT id, status, problem FROM bank.payouts WHERE problem IS NOT NULL")
            raise AssertionError(f"not {status}, but {found}; {problems}") from None

    async def flush(self, speed: Speed = Speed.FAST) -> None:
        batcher = Batcher(wallet=WALLET, speed=speed)
        await start_workflow(await self.hot.temporal(), batcher_start(batcher), signal="flush")

    async def received(self, address: str) -> int:
        """What this address has got, in the chain and in the mempool, in satoshi."""
        told = await asyncio.to_thread(self.chain.call, "getreceivedbyaddress", address, 0, wallet=self.chain.payer)
        return int(Decimal(str(told)).scaleb(8))
