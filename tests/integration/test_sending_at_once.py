"""What becomes of a payment that is sent with its opening: a real Postgres, and a node that says what it is told.

The same over real nodes is in `test_payments.py`, and with whatever can break in `tests/fault`.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.payment import Payments
from activities.prompt import Prompt
from activities.sending import Sending
from engine.clients.lnd import LndNode, NodePayment, NodePaymentStatus
from engine.contracts.payment import OpenedPayment, PaymentRequest, PaymentStatus
from engine.domain.errors import InvariantBroken, OutcomeUnknown
from engine.domain.ids import AccountId, PaymentHash, PaymentId, WalletId
from engine.domain.money import Msat
from engine.ledger import chart, payment
from tests.fixtures.postgres import Database
from tests.integration.api_helpers import Api, User, running_api
from tests.integration.views_helpers import NODE, Teller, open_teller
from tests.unit.sending_helpers import ATTEMPT, IN_FLIGHT, PAID, FakeLnd
from tests.unit.sending_helpers import payment as node_payment

pytestmark = pytest.mark.integration

NEW = replace(PAID, payment_index=1)
FAILED = node_payment(NodePaymentStatus.FAILED, 1, "FAILURE_REASON_NO_ROUTE")


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api


@pytest_asyncio.fixture
async def teller(api: Api) -> Teller:
    return await open_teller(api)


@pytest_asyncio.fixture
async def alice(api: Api, teller: Teller) -> User:
    user = await api.open_account()
    await teller.receive(user, 50_000_000)
    return user


def _request(payer: User) -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId("pay_" + 25 * "1"),
        account_id=AccountId(payer.id),
        wallet_id=WalletId(payer.wallet_id),
        idempotency_key="k",
        body_hash="ab" * 32,
        destination="somewhere",
        bolt11="lnbcrt1somebody",
        payment_hash=PaymentHash(ATTEMPT.payment_hash),
        amount_msat=Msat(1_000_000),
        max_fee_msat=Msat(10_000),
    )


async def _open(teller: Teller, lnd: FakeLnd, asked: PaymentRequest) -> OpenedPayment:
    nodes = {NODE: Sending(cast("LndNode", lnd), teller.pool)}
    payments = Payments(teller.pool, chart.Chart(), prompt=Prompt(nodes, most=4))
    return cast("OpenedPayment", await ActivityEnvironment().run(payments.open_payment, asked))


async def _balance(user: User) -> tuple[int, int]:
    wallet = (await user.get(f"/v1/wallets/{user.wallet_id}")).json()
    return wallet["balance_msat"], wallet["held_msat"]


async def test_what_the_node_pays_at_once_is_settled_with_its_opening(teller: Teller, alice: User) -> None:
    asked, lnd = _request(alice), FakeLnd(known=None, says=[IN_FLIGHT, NEW])
    opened = await _open(teller, lnd, asked)
    assert (opened.outcome.status, opened.attempt, lnd.order) == (PaymentStatus.SETTLED, None, ["send"])
    assert await _balance(alice) == (50_000_000 - 1_000_350, 0)
    shown = (await alice.get(f"/v1/payments/{asked.payment_id}")).json()
    assert (shown["status"], shown["fee_msat"], shown["preimage"]) == ("settled", 350, "ef" * 32)


async def test_what_the_node_fails_at_once_is_given_back_with_its_opening(teller: Teller, alice: User) -> None:
    opened = await _open(teller, FakeLnd(known=None, says=[FAILED]), _request(alice))
    assert (opened.outcome.status, opened.attempt) == (PaymentStatus.FAILED, None)
    assert await _balance(alice) == (50_000_000, 0)


@pytest.mark.parametrize(
    ("says", "begun"), [([IN_FLIGHT, OutcomeUnknown("lost")], [True]), ([OutcomeUnknown("lost")], [False])]
)
async def test_what_has_no_end_yet_is_held_and_goes_on_from_the_nodes_queue(
    teller: Teller, alice: User, says: list[NodePayment | Exception], begun: list[bool]
) -> None:
    opened = await _open(teller, FakeLnd(known=None, says=says), _request(alice))
    assert opened.attempt is not None
    assert (opened.outcome.status, [opened.attempt.begun]) == (PaymentStatus.PENDING, begun)
    assert await _balance(alice) == (50_000_000, 1_010_000)


async def test_a_repeat_of_the_opening_sends_nothing(teller: Teller, alice: User) -> None:
    """Whoever died with it may have sent it: the next send looks first, and that is the queue's."""
    first, second = (FakeLnd(known=None, says=[OutcomeUnknown("lost")]), FakeLnd(known=None, says=[NEW]))
    held, found = await _open(teller, first, _request(alice)), await _open(teller, second, _request(alice))
    assert held == found
    assert (first.sent, second.order) == (1, [])


async def test_an_end_that_cannot_be_booked_at_once_is_left_to_those_who_have_patience(
    teller: Teller, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object, **_more: object) -> None:
        raise InvariantBroken("the books contradict themselves")

    monkeypatch.setattr(payment, "mark_settled_in_tx", broken)
    opened = await _open(teller, FakeLnd(known=None, says=[IN_FLIGHT, NEW]), _request(alice))
    assert opened.attempt is not None
    assert opened.attempt.begun
    assert await _balance(alice) == (50_000_000, 1_010_000)
