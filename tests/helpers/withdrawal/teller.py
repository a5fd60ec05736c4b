"""Withdrawals without Temporal and bitcoind: the activities that a worker would run, called directly."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from activities.withdrawal.withdrawal import Withdrawals
from engine.bank.withdrawal import payout, queue, version
from engine.bank.withdrawal.coin import reserve_in_tx
from engine.bank.withdrawal.decision import NewWithdrawalDecision, propose_in_tx
from engine.bank.withdrawal.member import list_members, mark_broadcast_in_tx
from engine.bank.withdrawal.rules import read_withdrawal_rules
from engine.bank.withdrawal.withdrawal import WithdrawalRow, find_row
from engine.contracts import workflow_ids
from engine.contracts.withdrawal import (
    DecideWithdrawal,
    OpenedWithdrawal,
    WithdrawalApproval,
    WithdrawalRef,
    WithdrawalRequest,
    WithdrawalState,
)
from engine.domain.deposit import Outpoint
from engine.domain.errors import EngineError
from engine.domain.ids import (
    AccountId,
    ApiKeyId,
    PayoutId,
    Txid,
    WalletId,
    WithdrawalDecisionId,
    WithdrawalId,
    id_for_key,
    new_id,
)
from engine.domain.money import Sat
from engine.domain.withdrawal.decision import WithdrawalDecisionKind, operators_needed
from engine.domain.withdrawal.script import output_script
from engine.domain.withdrawal.share import split
from engine.domain.withdrawal.withdrawal import PayoutKind, Speed, VersionKind
from engine.ledger.chart import Chart
from engine.ledger.database import transaction
from engine.ledger.postings.payout import PaidMember, Sent, broadcast
from engine.ledger.store import post_new_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of
from tests.helpers.api import User
from tests.helpers.ledger.deposit import Depositor
from tests.helpers.payer import Payers, running_payers

_numbers = itertools.count(1)
SAT = 1_000
CAP_SAT = 5_000

_SPENT_FOR = """
WITH spent AS (
     INSERT INTO bank.coins(txid, vout, amount_sat, block_height, spent_by, opening) VALUES ($1, 0, 1, 1, $2, true)
     ON CONFLICT DO NOTHING)
INSERT INTO bank.coin_spends(txid, vout, spender, block_height) VALUES ($1, 0, $2, 1) ON CONFLICT DO NOTHING"""
"""A coin of the house that a transaction has spent."""


def outside(number: int = 0) -> str:
    """An address of nobody in the bank."""
    return address_of(10**9 + number)


@dataclass
class Withdrawers:
    """Asks, cancels, decides, seals and sends, in the real books."""

    payers: Payers
    ids: Chart = field(default_factory=Chart)

    def __post_init__(self) -> None:
        self.pool = self.payers.pool
        self.withdrawals = Withdrawals(self.pool, self.ids)
        self.depositor = Depositor(self.pool)

    async def user(self, balance_msat: int = 10**9, *, level: int = 0) -> User:
        made = await self.payers.api.open_account(level=level)
        if balance_msat:
            await self.payers.fund(made, balance_msat)
        return made

    def request(self, user: User, amount_sat: int | None, *, key: str | None = None, **more: Any) -> WithdrawalRequest:
        key = key or f"wd-{next(_numbers)}"
        account, address = AccountId(user.id), more.pop("address", outside())
        known: dict[str, Any] = {
            "withdrawal_id": WithdrawalId(id_for_key("wd", account, key)),
            "account_id": account,
            "wallet_id": WalletId(user.wallet_id),
            "idempotency_key": key,
            "body_hash": hashlib.sha256(f"{user.id} {key} {amount_sat} {address}".encode()).hexdigest(),
            "hot_wallet": "hot",
            "address": address,
            "script": output_script(address).hex(),
            "amount_sat": None if amount_sat is None else Sat(amount_sat),
            "fee_from": "balance",
            "speed": Speed.STANDARD,
            "alone": False,
            "unlinked": False,
            "max_fee_sat": None,
            "fee_cap_sat": Sat(CAP_SAT),
            "api_key_id": ApiKeyId("key_" + user.headers["Authorization"].split("_")[1]),
        }
        return WithdrawalRequest(**known | more)

    async def open(self, user: User, amount_sat: int | None, **more: Any) -> OpenedWithdrawal:
        return await self.withdrawals.open_withdrawal(self.request(user, amount_sat, **more))

    async def opened(self, user: User, amount_sat: int | None, **more: Any) -> WithdrawalId:
        asked = self.request(user, amount_sat, **more)
        found = await self.withdrawals.open_withdrawal(asked)
        assert found.state is not None, found
        return asked.withdrawal_id

    async def outcome(self, user: User, amount_sat: int | None, **more: Any) -> str:
        """The status, or the code of the refusal."""
        found = await self.open(user, amount_sat, **more)
        if found.refusal is not None:
            return found.refusal.code
        assert found.state is not None, found
        return str(found.state.status)

    async def look(self, withdrawal: WithdrawalId) -> WithdrawalState:
        return await self.withdrawals.advance_withdrawal(WithdrawalRef(withdrawal_id=withdrawal))

    async def cancel(self, withdrawal: WithdrawalId) -> str:
        """The status, or the code of the refusal."""
        try:
            state = await self.withdrawals.cancel_withdrawal(WithdrawalRef(withdrawal_id=withdrawal))
        except EngineError as refused:
            return refused.code
        return str(state.status)

    async def row(self, withdrawal: WithdrawalId) -> WithdrawalRow:
        async with self.pool.acquire() as conn:
            found = await find_row(conn, withdrawal)
        assert found is not None
        return found

    async def column(self, withdrawal: WithdrawalId, name: str) -> Any:
        return await self.pool.fetchval(f"SELECT {name} FROM bank.withdrawals WHERE id = $1", withdrawal)

    async def settled(self, code: str) -> int:
        """The balance of an account of the bank in msat, debit +."""
        return int(
            await self.pool.fetchval(
                """SELECT coalesce(sum(e.amount) FILTER (WHERE e.layer = 0), 0) FROM ledger.entries e
                     JOIN ledger.accounts a ON a.id = e.account_id WHERE a.code = $1""",
                code,
            )
        )

    async def propose(
        self, withdrawal: WithdrawalId, kind: WithdrawalDecisionKind, by: str, reason: str = "seen the papers"
    ) -> WithdrawalDecisionId:
        async with transaction(self.pool) as conn:
            row = await find_row(conn, withdrawal)
            assert row is not None
            rules = await read_withdrawal_rules(conn)
            new = NewWithdrawalDecision(
                id=WithdrawalDecisionId(new_id("wdd")),
                withdrawal_id=withdrawal,
                kind=kind,
                amount_sat=row.amount_sat,
                operators=operators_needed(kind, row.amount_sat, rules),
                reason=reason,
                proposed_by=AccountId(by),
            )
            return await propose_in_tx(conn, new)

    async def decide(
        self, withdrawal: WithdrawalId, decision: WithdrawalDecisionId, by: str, *, key_id: str = "key_1"
    ) -> str:
        """The status, or the code of the refusal."""
        approval = WithdrawalApproval(decision=decision, operator=AccountId(by), key_id=key_id, note="seen")
        try:
            state = await self.withdrawals.decide_withdrawal(
                DecideWithdrawal(withdrawal_id=withdrawal, approval=approval)
            )
        except EngineError as refused:
            return refused.code
        return str(state.status)

    async def coin(self, amount_sat: int, *, ours: bool = True, **more: Any) -> Outpoint:
        """A coin of the hot wallet, with its origins. `ours`: as change, of a transaction that spends another."""
        number = next(_numbers)
        columns: dict[str, Any] = {
            "txid": hashlib.sha256(f"coin {number}".encode()).hexdigest(),
            "vout": 0,
            "amount_sat": amount_sat,
            "address": address_of(10**6 + number),
            "change": True,
            "block_height": 1,
            "opening": False,
        }
        origins: Sequence[str] = more.pop("origins", ())
        columns |= more
        await self.payers.api.database.execute(
            f"""INSERT INTO bank.coins({", ".join(columns)})
                VALUES ({", ".join(f"${at}" for at in range(1, len(columns) + 1))})""",
            *columns.values(),
        )
        if columns["change"] and ours:
            await self.payers.api.database.execute(
                _SPENT_FOR, hashlib.sha256(columns["txid"].encode()).hexdigest(), columns["txid"]
            )
        for origin in origins:
            await self.payers.api.database.execute(
                "INSERT INTO bank.coin_origins VALUES ($1, $2, $3)", columns["txid"], columns["vout"], origin
            )
        return Outpoint(txid=Txid(columns["txid"]), vout=columns["vout"])

    async def seal(
        self, members: Sequence[WithdrawalId], *, fee_sat: int = 330, coin: Outpoint | None = None
    ) -> PayoutId:
        """All of them in one payout, as a batcher would: with equal weights, and no change."""
        made = PayoutId(new_id("po"))
        async with transaction(self.pool) as conn:
            queued = {each.id: each for each in await queue.list_queued_in_tx(conn, Speed.STANDARD, limit=100)}
            shares = split(Sat(fee_sat), [124] * len(members))
            seals = []
            for place, (each, share) in enumerate(zip(members, shares, strict=True)):
                row = queued[each]
                paid = (
                    row.amount_sat
                    if row.fee_from == "balance"
                    else (row.held_msat - row.service_fee_msat) // SAT - share
                )
                seals.append(queue.Seal(id=each, place=place, vout=place, paid_sat=Sat(paid), miner_fee_sat=share))
            new = payout.NewPayout(
                id=made,
                wallet="hot",
                kind=PayoutKind.BATCH,
                speed=Speed.STANDARD,
                workflow_id=workflow_ids.payout(made),
                estimate={"rate_sat_kvb": 3_000, "source": "fixed"},
            )
            await payout.add_in_tx(conn, new)
            spent = coin or Outpoint(txid=Txid(hashlib.sha256(made.encode()).hexdigest()), vout=0)
            total = Sat(sum(each.paid_sat for each in seals) + fee_sat)
            await version.add_in_tx(
                conn,
                version.NewVersion(
                    payout_id=made,
                    number=1,
                    kind=VersionKind.FIRST,
                    rate_sat_kvb=3_000,
                    fee_sat=Sat(fee_sat),
                    weight=440,
                    inputs=[version.Input(outpoint=spent, amount_sat=total)],
                ),
            )
            await reserve_in_tx(conn, made, [spent])
            await queue.seal_in_tx(conn, made, seals)
        return made

    async def sign(self, made: PayoutId) -> Txid:
        txid = Txid(hashlib.sha256(f"signed {made}".encode()).hexdigest())
        async with transaction(self.pool) as conn:
            await payout.get_row_in_tx(conn, made)
            await version.set_draft_in_tx(conn, made, 1, psbt="cHNidA==", change_address=None)
            await version.set_signed_in_tx(conn, made, 1, raw="00", txid=txid)
            await payout.mark_signed_in_tx(conn, made)
        return txid

    async def send(self, made: PayoutId) -> None:
        """The node takes it, and the books have it."""
        async with transaction(self.pool) as conn:
            row = await payout.get_row_in_tx(conn, made)
            (first,) = await version.list_versions(conn, made)
            assert first.txid is not None
            members = [
                PaidMember(
                    withdrawal=each,
                    payer=each.ledger_account_id,
                    paid_sat=each.paid_sat,
                    miner_fee_sat=each.miner_fee_sat,
                    takes_all=each.takes_all,
                )
                for each in await list_members(conn, made)
            ]
            sent = Sent(id=made, txid=first.txid, fee_sat=first.fee_sat, workflow_id=row.workflow_id)
            posting = broadcast(await self.ids.load(conn), sent, members)
            await post_new_in_tx(conn, posting)
            await version.mark_broadcast_in_tx(conn, made, 1)
            await payout.mark_broadcast_in_tx(conn, made, ref=posting.ref, fee_sat=first.fee_sat)
            await mark_broadcast_in_tx(conn, made, len(members))


@asynccontextmanager
async def running_withdrawers(database: Database, folder: Path) -> AsyncIterator[Withdrawers]:
    """A bank whose hot wallet follows a chain at height 100; the rules of the books hold at the end."""
    async with running_payers(database, folder) as payers:
        found = Withdrawers(payers)
        await found.depositor.reach(100)
        yield found
