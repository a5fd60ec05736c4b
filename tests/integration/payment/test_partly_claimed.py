"""A payee who takes only some parts of a payment, or more than he was to get: books on a real Postgres, a made-up node.

A real payee claims all parts or none; a node of a stranger's need not.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.direct_send import DirectSend
from activities.payment import Payments
from activities.reconciliation.matching import Memory, match
from activities.reconciliation.place import PlaceReconciliations
from activities.sending.sending import Sending
from engine.bank.reconciliation import Counterparts
from engine.clients.lnd.balance import NodeBalances
from engine.clients.lnd.client import LndNode, NodePayment
from engine.clients.lnd.history import LndHistory, News, NodeChange, PaidIn, PaidOut
from engine.contracts.payment import (
    AttemptReport,
    NodeVerdict,
    OpenedPayment,
    PaymentOutcome,
    PaymentRequest,
    PaymentStatus,
    settlement,
)
from engine.contracts.reconciliation import FindingKind, NodeComparison, PlaceReport
from engine.domain.errors import InvariantBroken
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat
from engine.ledger.chart import Chart, commit_escrow, onchain
from tests.fixtures.postgres import Database
from tests.helpers.api import Json, User
from tests.helpers.payer import NODE, Payers, running_payers
from tests.helpers.sending import IN_FLIGHT, PAID, FakeLnd

pytestmark = pytest.mark.integration

FUNDS, ASKED, CAP, FEE = 50_000_000, 1_000_000, 5_000, 350


@pytest_asyncio.fixture
async def payers(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Payers]:
    async with running_payers(ledger_db, tmp_path) as payers:
        yield payers


@pytest_asyncio.fixture
async def alice(payers: Payers) -> User:
    user = await payers.api.open_account()
    await payers.fund(user, FUNDS)
    return user


async def _settle(payers: Payers, asked: PaymentRequest, delivered_msat: int, fee_msat: int = FEE) -> PaymentOutcome:
    report = AttemptReport(
        verdict=NodeVerdict.SUCCEEDED,
        fee_msat=Msat(fee_msat),
        preimage="ef" * 32,
        payment_index=1,
        delivered_msat=Msat(delivered_msat),
    )
    return await payers.payments.settle_payment(settlement(asked, report))


async def _channels(payers: Payers) -> int:
    return await _sum(payers, f"asset:lnd:{NODE}:channels")


async def _sum(payers: Payers, code: str) -> int:
    moved: int = await payers.api.database.fetchval(
        """SELECT coalesce(sum(e.amount), 0)::bigint FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
            WHERE a.code = $1 AND e.layer = 0""",
        code,
    )
    return moved


@pytest.mark.parametrize("delivered", [1, 600_000, ASKED - 1, ASKED + 1, ASKED + CAP - FEE])
async def test_the_part_that_the_payee_took_is_booked_and_the_rest_is_the_payers_again(
    payers: Payers, alice: User, delivered: int
) -> None:
    asked = payers.request(alice, None, ASKED)
    await payers.payments.open_payment(asked)
    assert await alice.balance() == (FUNDS, ASKED + CAP)
    first, repeated = await _settle(payers, asked, delivered), await _settle(payers, asked, delivered)
    assert first == repeated
    assert (first.status, first.delivered_msat) == (PaymentStatus.SETTLED, delivered)
    assert await alice.balance() == (FUNDS - delivered - FEE, 0)
    assert await _channels(payers) == FUNDS - delivered - FEE

    again = await payers.payments.open_payment(asked)
    assert again == OpenedPayment(outcome=first)
    shown: Json = (await alice.get(f"/v1/payments/{asked.payment_id}")).json()
    assert (shown["status"], shown["amount_msat"], shown["delivered_msat"]) == ("settled", ASKED, delivered)
    assert shown["fee_msat"] == FEE
    moved = (await alice.get(f"/v1/wallets/{alice.wallet_id}/transactions")).json()["items"][0]
    assert (moved["amount_msat"], moved["fee_msat"]) == (delivered, FEE)
    lines = (await alice.get(f"/v1/wallets/{alice.wallet_id}/statement")).json()
    assert lines["closing_msat"] == FUNDS - delivered - FEE
    assert lines["movements"][-1]["amount_msat"] == -delivered - FEE


async def test_the_booked_amount_is_what_the_node_remembers(payers: Payers, alice: User) -> None:
    asked = payers.request(alice, None, ASKED)
    await payers.payments.open_payment(asked)
    await _settle(payers, asked, 600_000)
    ref = f"ln:{asked.payment_hash}:settle"
    booked = await payers.api.database.fetchval(
        """SELECT e.amount FROM ledger.entries e JOIN ledger.transfers t ON t.id = e.transfer_id
             JOIN ledger.accounts a ON a.id = e.account_id WHERE t.external_ref = $1 AND a.code = $2""",
        ref,
        f"asset:lnd:{NODE}:channels",
    )
    assert asked.payment_hash is not None
    sent = PaidOut(payment_hash=asked.payment_hash, total_msat=Msat(600_000 + FEE))
    memory = Memory(paid_out=[sent], paid_in=[], now_s=0)
    seen = match(NodeName(NODE), memory, Counterparts(booked={ref: booked}, pending={}, released=set()), memory)
    assert (seen.findings, seen.in_flight, seen.unmatched) == ([], [], [])


@pytest.mark.parametrize(("delivered", "fee"), [(ASKED + CAP - FEE + 1, FEE), (ASKED, CAP + 1), (1, CAP + 1)])
async def test_more_than_is_held_is_booked_by_nobody(payers: Payers, alice: User, delivered: int, fee: int) -> None:
    asked = payers.request(alice, None, ASKED)
    await payers.payments.open_payment(asked)
    with pytest.raises(InvariantBroken):
        await _settle(payers, asked, delivered, fee)
    assert await alice.balance() == (FUNDS, ASKED + CAP)
    assert (await alice.get(f"/v1/payments/{asked.payment_id}")).json()["status"] == "pending"


async def test_a_partly_claimed_payment_does_not_end_with_its_opening_because_its_own_workflow_calls_an_operator(
    payers: Payers, alice: User
) -> None:
    partly = replace(PAID, payment_index=1, delivered_msat=Msat(600_000))
    door = Sending(cast("LndNode", FakeLnd(known=None, says=[partly])), payers.pool)
    payments = Payments(payers.pool, Chart(), direct_send=DirectSend({NODE: door}, most=4))
    opened = await ActivityEnvironment().run(payments.open_payment, payers.request(alice, None, ASKED))
    assert opened.attempt is not None
    assert (opened.outcome.status, opened.attempt.begun) == (PaymentStatus.PENDING, True)
    assert await alice.balance() == (FUNDS, ASKED + CAP)


async def test_a_payment_taken_in_full_has_no_amount_of_its_own(payers: Payers, alice: User) -> None:
    whole = replace(PAID, payment_index=1, delivered_msat=Msat(ASKED))
    door = Sending(cast("LndNode", FakeLnd(known=None, says=[whole])), payers.pool)
    payments = Payments(payers.pool, Chart(), direct_send=DirectSend({NODE: door}, most=4))
    asked = payers.request(alice, None, ASKED)
    opened = await ActivityEnvironment().run(payments.open_payment, asked)
    assert (opened.outcome.status, opened.outcome.delivered_msat) == (PaymentStatus.SETTLED, None)
    assert (await alice.get(f"/v1/payments/{asked.payment_id}")).json()["delivered_msat"] is None


@dataclass
class PartlyClaimed:
    """Behind the interfaces of LndNode and LndHistory: one part of its payment is claimed, and one on its way."""

    balances: NodeBalances
    claimed_msat: int
    name: str = NODE

    async def read_balances(self) -> NodeBalances:
        return self.balances

    async def find_payment(self, _payment_hash: PaymentHash) -> NodePayment:
        return replace(IN_FLIGHT, claimed_msat=Msat(self.claimed_msat))

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[News]:
        yield News()

    async def list_paid_out(self, _since_s: int) -> list[PaidOut]:
        return []

    async def list_paid_in(self, _since_s: int) -> list[PaidIn]:
        return []

    async def list_changes(self, _after_s: int) -> list[NodeChange]:
        return []


@pytest.mark.parametrize(("told", "differences"), [(600_200, []), (600_000, [200]), (0, [600_200])])
async def test_a_claimed_part_of_a_payment_in_flight_is_no_difference(
    payers: Payers, alice: User, told: int, differences: list[int]
) -> None:
    """The other part may be on its way for days, and nobody can book before it has ended."""
    await payers.payments.open_payment(payers.request(alice, None, ASKED))
    balances = NodeBalances(
        pubkey="02" + "ab" * 32,
        channels_msat=Msat(await _channels(payers) - 600_200),
        commit_escrow_msat=Msat(await _sum(payers, commit_escrow(NODE))),
        onchain_msat=Msat(await _sum(payers, onchain(NODE))),
        in_flight=True,
        htlc_fees_msat=Msat(0),
        channels=(),
        steady=True,
    )
    node = PartlyClaimed(balances, told)
    places = PlaceReconciliations(cast("LndNode", node), cast("LndHistory", node), payers.pool, cast("Client", None))
    asked = NodeComparison(node=NODE, stuck_after_s=3600)
    report: PlaceReport = await ActivityEnvironment().run(places.compare_node, asked)
    found = [each.amount_msat for each in report.findings if each.kind is FindingKind.DIFFERENCE]
    assert found == differences
    parts = [(each.kind, each.amount_msat) for account in report.accounts for each in account.in_flight]
    assert parts == ([("payment_part", told)] if told else [])
