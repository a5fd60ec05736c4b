"""A node against its accounts: what is named as in flight, what is found, and what is left."""

from datetime import UTC, datetime

import pytest

from activities.reconciliation.matching import RECEIPT_GRACE_S, Memory, compare, match, rests, unexplained
from engine.bank.reconciliation import BooksCut, Counterparts, Pending
from engine.clients.lnd.balance import NodeBalances
from engine.clients.lnd.history import News, NodeChange, PaidIn, PaidOut
from engine.contracts.reconciliation import FindingKind
from engine.domain.ids import NodeName, PaymentHash
from engine.domain.money import Msat

pytestmark = pytest.mark.unit

NODE, CHANNELS, NOW_S = NodeName("lnd-1"), "asset:lnd:lnd-1:channels", 1_000_000
HASH = PaymentHash("ab" * 32)
SENT = PaidOut(payment_hash=HASH, total_msat=Msat(1_003))
WAITING = Pending(
    id="pay_1", payment_hash=HASH, amount_msat=1_000, workflow_id="w", created_at=datetime.now(UTC), age_s=1
)


def memory(*paid: PaidOut | PaidIn) -> Memory:
    return Memory(
        paid_out=[each for each in paid if isinstance(each, PaidOut)],
        paid_in=[each for each in paid if isinstance(each, PaidIn)],
        now_s=NOW_S,
    )


def known(booked: dict[str, int] | None = None, *, pending: bool = False, released: bool = False) -> Counterparts:
    return Counterparts(
        booked=booked or {}, pending={HASH: WAITING} if pending else {}, released={HASH} if released else set()
    )


def got(age_s: int) -> PaidIn:
    return PaidIn(payment_hash=HASH, received_msat=Msat(50), settled_at_s=NOW_S - age_s)


def held(channels: int = 0, escrow: int = 0, *, in_flight: bool = False, htlc_fees: int = 0) -> NodeBalances:
    return NodeBalances(
        pubkey="02",
        channels_msat=Msat(channels),
        commit_escrow_msat=Msat(escrow),
        onchain_msat=Msat(0),
        in_flight=in_flight,
        htlc_fees_msat=Msat(htlc_fees),
        channels=(),
        steady=True,
    )


def cut(channels: int = 0, escrow: int = 0) -> BooksCut:
    return BooksCut(channels_msat=channels, commit_escrow_msat=escrow, onchain_msat=0)


@pytest.mark.parametrize(
    ("paid", "books"),
    [
        (SENT, {f"ln:{HASH}:settle": -1_003}),
        (got(9), {f"ln:{HASH}:recv": 50}),
        (got(9), {f"ln:{HASH}:recv:outside": 50}),
    ],
)
def test_a_payment_that_both_know_is_no_matter(paid: PaidOut | PaidIn, books: dict[str, int]) -> None:
    found = match(NODE, memory(paid), known(books), memory())
    assert (found.in_flight, found.findings, found.unmatched) == ([], [], [])


def test_a_payment_about_to_be_booked_is_in_flight_by_its_hash() -> None:
    for paid, amount_msat in ((SENT, 1_003), (got(RECEIPT_GRACE_S - 1), -50)):
        found = match(NODE, memory(paid), known(pending=isinstance(paid, PaidOut)), memory())
        assert found.findings == []
        assert [(item.ref, item.amount_msat) for item in found.in_flight] == [(HASH, amount_msat)]


@pytest.mark.parametrize(
    ("paid", "counterparts", "kind", "amount_msat"),
    [
        (SENT, known(), FindingKind.PAYMENT_NOT_IN_BOOKS, 1_003),
        (SENT, known(released=True), FindingKind.PAID_AFTER_RELEASE, 1_003),
        (SENT, known({f"ln:{HASH}:settle": -1_000}), FindingKind.AMOUNT_DIFFERS, 3),
        (got(RECEIPT_GRACE_S), known(), FindingKind.RECEIPT_NOT_BOOKED, -50),
        (got(1), known({f"ln:{HASH}:recv": 60}), FindingKind.AMOUNT_DIFFERS, 10),
    ],
)
def test_a_payment_that_only_one_of_them_knows_is_found_with_its_amount(
    paid: PaidOut | PaidIn, counterparts: Counterparts, kind: FindingKind, amount_msat: int
) -> None:
    (finding,) = match(NODE, memory(paid), counterparts, memory()).findings
    assert (finding.kind, finding.account, finding.subject, finding.amount_msat) == (kind, CHANNELS, HASH, amount_msat)


def test_a_payment_that_the_books_alone_know_is_looked_up() -> None:
    books = {f"ln:{HASH}:settle": -5, "node:lnd-1:opening": 100}
    assert match(NODE, memory(), known(books), memory()).unmatched == [f"ln:{HASH}:settle"]


def test_a_booking_after_the_balances_were_read_is_named() -> None:
    books = {f"ln:{HASH}:settle": -1_003}
    found = match(NODE, memory(), known(books), memory(SENT))
    assert (found.unmatched, found.findings) == ([], [])
    assert [(item.kind, item.amount_msat) for item in found.in_flight] == [("booked_since", -1_003)]


def test_a_payment_ended_since_the_lists_were_read_is_remembered_once() -> None:
    later = PaidOut(payment_hash=PaymentHash("cd" * 32), total_msat=Msat(1))
    news = News(paid_out={each.payment_hash: each for each in (SENT, later)})
    assert memory(SENT).and_then(news).paid_out == [SENT, later]


def test_a_finding_explains_its_part_and_the_rest_is_a_difference_with_suspects() -> None:
    findings = match(NODE, memory(SENT), known(), memory()).findings
    accounts = compare(NODE, cut(10_000), held(8_000), [], findings)
    assert accounts[0].difference_msat == 2_000
    left = rests(accounts, findings)
    assert left == {CHANNELS: 997}
    (rest,) = unexplained(left, [NodeChange(kind="closed_channel", ref="txid:0", amount_msat=900)])
    assert (rest.kind, rest.amount_msat, rest.suspects[0].ref) == (FindingKind.DIFFERENCE, 997, "txid:0")


def test_a_commitment_fee_may_move_between_the_two_accounts_only_while_htlcs_are_in_flight() -> None:
    moving = compare(NODE, cut(1_000, 500), held(1_200, 300, in_flight=True), [], [])
    assert [each.difference_msat for each in moving] == [0, 0, 0]
    at_rest = compare(NODE, cut(1_000, 500), held(1_200, 300), [], [])
    assert [each.difference_msat for each in at_rest] == [-200, 200, 0]
    more = compare(NODE, cut(1_000, 500), held(1_201, 300, in_flight=True), [], [])
    assert [each.difference_msat for each in more] == [-201, 200, 0]


def test_the_cost_of_htlcs_in_the_commitment_is_ours_and_named() -> None:
    channels, *_ = compare(NODE, cut(1_000), held(570, in_flight=True, htlc_fees=430), [], [])
    assert (channels.difference_msat, channels.in_flight[0].kind) == (0, "commitment_fee")
