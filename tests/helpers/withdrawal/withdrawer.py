"""Withdrawals of a `HotBank`: asked for as the API does, and waited for by their rows.

out = Withdrawer(hot)
await out.set_rules(window_s=0)
asked = await out.ask(alice, address, 50_000)
await out.reaches(asked, "broadcast")
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg
from temporalio.client import WorkflowHandle

from engine.bank.withdrawal.decision import NewWithdrawalDecision, propose_in_tx
from engine.contracts.batcher import Batcher, batcher_start
from engine.contracts.withdrawal import WithdrawalApproval, WithdrawalRequest, withdrawal_start
from engine.contracts.workflow_start import start_workflow
from engine.domain.ids import AccountId, WithdrawalDecisionId, WithdrawalId, id_for_key, new_id
from engine.domain.money import Sat
from engine.domain.withdrawal.decision import WithdrawalDecisionKind
from engine.domain.withdrawal.script import output_script
from engine.domain.withdrawal.withdrawal import FeeFrom, Speed
from engine.ledger.database import transaction
from infra.local.bitcoin_rpc import HOT
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import WALLET, Depositor
from tests.helpers.hot_wallet import by_hand
from tests.helpers.withdrawal.rules import read_rules, set_rules

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
        content = await read_rules(self.pool)
        for speed in content["speeds"].values():
            speed["window_s"] = window_s
        await set_rules(self.pool, speeds=content["speeds"], **more)

    async def meddle(self, statement: str, *values: object) -> None:
        """Somebody with all rights changes the books behind the engine's back."""
        conn = await asyncpg.connect(self.hot.database.superuser_dsn)
        await conn.execute(statement, *values)
        await conn.close()

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
        return _sat(told)

    async def funded(self, *amounts_sat: int) -> Depositor:
        """A user with deposits of these amounts, one block deep, so that the wallet has these coins."""
        user = await self.hot.user()
        for amount_sat in amounts_sat:
            await self.hot.pay(user, amount_sat)
        await self.hot.mine()
        await self.hot.shows(user, "credited", sum(amounts_sat))
        return user

    async def payout_of(self, asked: Asked) -> asyncpg.Record:
        """The payout that it is a member of."""
        row = await self.pool.fetchrow(
            "SELECT p.* FROM bank.payouts p JOIN bank.withdrawals w ON w.payout_id = p.id WHERE w.id = $1", asked.id
        )
        assert row is not None
        return row

    async def versions(self, asked: Asked) -> list[asyncpg.Record]:
        """Of its payout, the first one first."""
        return await self.pool.fetch(
            """SELECT v.* FROM bank.payout_versions v JOIN bank.withdrawals w ON w.payout_id = v.payout_id
                WHERE w.id = $1 ORDER BY v.number""",
            asked.id,
        )

    async def inputs(self, asked: Asked, number: int = 1) -> list[str]:
        """`txid:vout` of each input of this version."""
        rows = await self.pool.fetch(
            """SELECT i.txid, i.vout FROM bank.payout_inputs i JOIN bank.withdrawals w ON w.payout_id = i.payout_id
                WHERE w.id = $1 AND i.number = $2 ORDER BY i.place""",
            asked.id,
            number,
        )
        return [f"{row['txid']}:{row['vout']}" for row in rows]

    async def sent_versions(self, asked: Asked, count: int) -> list[asyncpg.Record]:
        """Wait until so many versions of its payout were sent."""

        async def look() -> list[asyncpg.Record] | None:
            found = await self.versions(asked)
            return found if sum(each["broadcast_at"] is not None for each in found) >= count else None

        return await eventually(look, f"{count} versions to be sent", limit_s=_LIMIT_S)

    async def payout_is(self, asked: Asked, condition: str) -> asyncpg.Record:
        """Wait until this is true of its payout's row, in SQL."""

        async def look() -> asyncpg.Record | None:
            return await self.pool.fetchrow(
                f"""SELECT p.* FROM bank.payouts p JOIN bank.withdrawals w ON w.payout_id = p.id
                     WHERE w.id = $1 AND ({condition})""",
                asked.id,
            )

        try:
            return await eventually(look, condition, limit_s=_LIMIT_S)
        except AssertionError:
            raise AssertionError(f"not {condition}, but {await self.payout_of(asked)}") from None

    async def decided(self, asked: Asked, kind: WithdrawalDecisionKind, rate_sat_kvb: int | None = None) -> None:
        """Two operators decide this about its payout."""
        payout = await self.payout_of(asked)
        new = NewWithdrawalDecision(
            id=WithdrawalDecisionId(new_id("wdec")),
            payout_id=payout["id"],
            kind=kind,
            amount_sat=Sat(0),
            rate_sat_kvb=rate_sat_kvb,
            operators=2,
            reason="a test",
            proposed_by=AccountId("one"),
        )
        async with transaction(self.pool) as conn:
            decision = await propose_in_tx(conn, new)
        approval = WithdrawalApproval(decision=decision, operator=AccountId("two"), key_id="key")
        handle = (await self.hot.temporal()).get_workflow_handle(payout["workflow_id"])
        await handle.execute_update("decide", approval)

    async def spend_by_hand(self, *outpoints: str) -> str:
        """Somebody at the node sends these coins back to the wallet, for no fee. The transaction (hex), for a block."""

        coins = [(each.split(":")[0], int(each.split(":")[1])) for each in outpoints]
        return await asyncio.to_thread(by_hand.back_to_itself, self.chain, coins)

    @asynccontextmanager
    async def frozen_by_hand(self, *outpoints: str) -> AsyncIterator[None]:
        """An operator has locked these coins at the node, or all that nobody has locked yet, for the block's length."""
        listed = list(outpoints) or await asyncio.to_thread(self._unlocked)
        coins = [{"txid": each.split(":")[0], "vout": int(each.split(":")[1])} for each in listed]
        await asyncio.to_thread(self.chain.call, "lockunspent", False, coins, wallet=HOT)
        try:
            yield
        finally:
            locked = await asyncio.to_thread(self.chain.call, "listlockunspent", wallet=HOT)
            held = [each for each in coins if each in locked]
            if held:
                await asyncio.to_thread(self.chain.call, "lockunspent", True, held, wallet=HOT)

    def _unlocked(self) -> list[str]:
        return [f"{each['txid']}:{each['vout']}" for each in self.chain.call("listunspent", 0, wallet=HOT)]

    async def transaction(self, txid: str) -> tuple[int, list[tuple[str, int]]]:
        """What the node itself says of one in its mempool: the fee, and each output's script (hex) and amount."""

        def ask() -> tuple[int, list[tuple[str, int]]]:
            entry = self.chain.call("getmempoolentry", txid)
            told = self.chain.call("getrawtransaction", txid, True)
            outputs = [(each["scriptPubKey"]["hex"], _sat(each["value"])) for each in told["vout"]]
            return _sat(entry["fees"]["base"]), outputs

        return await asyncio.to_thread(ask)


def _sat(told: object) -> int:
    return int(Decimal(str(told)).scaleb(8))
