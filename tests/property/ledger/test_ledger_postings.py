"""Each event of the bank as a posting: pure, so every rule is tried without a database."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.correction import THROUGH, CorrectionKind, transfer_refs
from engine.domain.errors import InvariantBroken
from engine.domain.fee import Charge
from engine.domain.ids import PaymentHash
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from engine.ledger.book import Posting
from engine.ledger.postings.correction import corrected
from engine.ledger.postings.payment import hold_ref, paid_internally, released, reserved, settled
from engine.ledger.postings.receipt import receive_ref
from tests.helpers.ledger.posting import (
    ALICE,
    BOB,
    CHANNELS,
    CODES,
    ESCROW,
    HASH,
    IDS,
    ONCHAIN,
    correction,
    opening,
    payment,
    receipt,
    settlement,
    stray,
)

pytestmark = pytest.mark.property

amounts = st.integers(1, MAX_AMOUNT_MSAT // 4).map(Msat)
fees = st.integers(0, MAX_AMOUNT_MSAT // 4).map(Msat)


def moves(*postings: Posting) -> dict[int, int]:
    """What each account has more (debit) or less (credit) after them; accounts that nothing moved are left out."""
    total: dict[int, int] = {}
    for leg in (leg for posting in postings for leg in posting.legs):
        total[leg.account_id] = total.get(leg.account_id, 0) + leg.amount_msat
    return {account: amount for account, amount in total.items() if amount}


@settings(deadline=None)
@given(amounts, fees, fees, st.integers(1, 10**9))
def test_a_hold_takes_amount_cap_and_fee_from_the_payer_alone(
    amount: Msat, cap: Msat, ours: Msat, attempt: int
) -> None:
    one = payment(amount_msat=amount, max_fee_msat=Msat(cap + ours), service_fee_msat=ours, attempt=attempt)
    held = reserved(IDS, one, ALICE)
    assert (held.phase, held.ref) == ("hold", hold_ref(HASH, attempt))
    assert moves(held) == {ALICE: amount + cap + ours, IDS.outbox: -(amount + cap + ours)}
    assert list(released(one).relates_to) == [held.ref]
    assert released(one).legs == ()


@settings(deadline=None)
@given(amounts, fees, fees, st.data())
def test_a_settlement_books_what_left_and_never_more_than_was_held(
    amount: Msat, cap: Msat, ours: Msat, data: st.DataObject
) -> None:
    one = payment(amount_msat=amount, max_fee_msat=Msat(cap + ours), service_fee_msat=ours)
    routing = Msat(data.draw(st.integers(0, cap)))
    delivered = data.draw(st.none() | st.integers(1, amount + cap - routing).map(Msat))
    booked = settled(IDS, one, payer=ALICE, channels=CHANNELS, fee_msat=routing, delivered_msat=delivered)
    left = amount if delivered is None else delivered
    expected = {
        ALICE: left + routing + ours,
        CHANNELS: -(left + routing),
        IDS.routing_cost: routing,
        IDS.lightning_fees: -(routing + ours),
    }
    assert moves(booked) == {account: moved for account, moved in expected.items() if moved}
    assert moves(booked)[ALICE] <= moves(reserved(IDS, one, ALICE))[ALICE]
    assert list(booked.relates_to) == [hold_ref(HASH, 2)]


@settings(deadline=None)
@given(amounts, fees, fees, amounts)
def test_a_settlement_above_the_hold_is_refused(amount: Msat, cap: Msat, ours: Msat, more: Msat) -> None:
    one = payment(amount_msat=amount, max_fee_msat=Msat(cap + ours), service_fee_msat=ours)
    with pytest.raises(InvariantBroken, match="above"):
        settled(IDS, one, payer=ALICE, channels=CHANNELS, fee_msat=Msat(cap + more))
    too_much = Msat(amount + more)
    with pytest.raises(InvariantBroken, match="more than is held"):
        settled(IDS, one, payer=ALICE, channels=CHANNELS, fee_msat=cap, delivered_msat=too_much)


@pytest.mark.parametrize("missing", ["payment_hash", "attempt"])
def test_an_internal_payment_is_neither_held_nor_ended_as_a_lightning_one(missing: str) -> None:
    one, nothing = payment(**{missing: None}), "pay_1 is no Lightning payment"
    with pytest.raises(InvariantBroken, match=nothing):
        reserved(IDS, one, ALICE)
    with pytest.raises(InvariantBroken, match=nothing):
        settlement(0, **{missing: None})
    with pytest.raises(InvariantBroken, match=nothing):
        released(one)


@settings(deadline=None)
@given(amounts, fees, st.sampled_from([HASH, None]))
def test_between_users_the_payer_pays_the_fee_and_the_payee_gets_the_amount(
    amount: Msat, ours: Msat, payment_hash: PaymentHash | None
) -> None:
    one = payment(amount_msat=amount, max_fee_msat=ours, service_fee_msat=ours, payment_hash=payment_hash)
    paid = paid_internally(IDS, one, payer=ALICE, payee=BOB)
    expected = {ALICE: amount + ours, BOB: -amount, IDS.transfer_fees: -ours}
    assert moves(paid) == {account: moved for account, moved in expected.items() if moved}
    assert paid.ref == (receive_ref(HASH) if payment_hash else "pay:pay_1")


@pytest.mark.parametrize("beside", [False, True])
@settings(deadline=None)
@given(amount=amounts, data=st.data())
def test_the_payee_has_all_of_a_receipt_but_our_fee(*, beside: bool, amount: Msat, data: st.DataObject) -> None:
    ours = Msat(data.draw(st.integers(0, amount)))
    booked = receipt(amount, Charge(fee_msat=ours, version=1, level=0), beside_internal=beside)
    expected = {CHANNELS: amount, BOB: -(amount - ours), IDS.lightning_fees: -ours}
    assert moves(booked) == {account: moved for account, moved in expected.items() if moved}
    assert booked.metadata == ({"fee_msat": ours, "fee_version": 1, "fee_level": 0} if ours else {})
    assert booked.ref == receive_ref(HASH, beside_internal=beside)


@settings(deadline=None)
@given(amounts)
def test_money_for_an_unknown_hash_is_owed_to_nobody_yet(amount: Msat) -> None:
    booked = stray(amount)
    assert moves(booked) == {CHANNELS: amount, IDS.suspense_in: -amount}
    assert booked.ref == receive_ref(HASH)
    assert stray(amount, beside_internal=True).ref == receive_ref(HASH, beside_internal=True)


@settings(deadline=None)
@given(st.tuples(fees, fees, fees))
def test_all_that_a_node_holds_is_capital(held: tuple[Msat, Msat, Msat]) -> None:
    booked = opening(*held)
    if booked is None:
        assert sum(held) == 0
        return
    expected = dict(zip((CHANNELS, ESCROW, ONCHAIN), held, strict=True)) | {IDS.capital: -sum(held)}
    assert moves(booked) == {account: moved for account, moved in expected.items() if moved}


@settings(deadline=None)
@given(amounts, st.permutations(sorted(set(CODES) - {THROUGH, "equity:capital"})))
def test_a_correction_moves_the_amount_once_and_leaves_nothing_on_its_way(amount: Msat, codes: list[str]) -> None:
    one = correction(debit=codes[0], credit=codes[1], amount_msat=amount)
    booked = corrected(one, "acct_b", CODES)
    assert moves(*booked) == {CODES[codes[0]]: amount, CODES[codes[1]]: -amount}
    assert [each.ref for each in booked] == transfer_refs(one.id, CorrectionKind.CORRECTION, codes[0], codes[1])


@pytest.mark.parametrize("approved_by", [None, "acct_a"])
def test_a_correction_without_a_second_operator_is_not_posted(approved_by: str | None) -> None:
    with pytest.raises(InvariantBroken, match="corr_1 has no second operator"):
        corrected(correction(), approved_by, CODES)
