"""The postings of withdrawals and payouts: for every input they balance, and leave no wallet more than was held."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.errors import InvariantBroken
from engine.domain.ids import PayoutId, Txid, WithdrawalId
from engine.domain.limit import Count
from engine.domain.money import Msat, Sat
from engine.domain.withdrawal.held import Held
from engine.domain.withdrawal.terms import OnChain, Wish, on_chain
from engine.ledger.postings.payout import PaidMember, Sent, broadcast, fee_changed
from engine.ledger.postings.withdrawal import given_back, held, paid_in_books
from tests.helpers.ledger.posting import ALICE, BOB, IDS

pytestmark = pytest.mark.property

SATS = st.integers(1, 10**12)


def withdrawal(held_msat: int, service_fee_msat: int = 0, number: int = 1) -> Held:
    return Held(
        id=WithdrawalId(f"wd_{number}"),
        held_msat=Msat(held_msat),
        service_fee_msat=Msat(service_fee_msat),
        fee_version=3,
        fee_level=2,
        workflow_id="withdrawal-1",
        memo="rent",
    )


def sent(fee_sat: int) -> Sent:
    return Sent(id=PayoutId("po_1"), txid=Txid("ab" * 32), fee_sat=Sat(fee_sat), workflow_id="payout-1")


def member(paid: int, share: int, fee_sat: int = 0, *, payer: int = ALICE, number: int = 1, **more: Any) -> PaidMember:
    """More than it takes is held, unless the fees come out of the amount."""
    left_msat = more.pop("left_msat", 0)
    return PaidMember(
        withdrawal=withdrawal((paid + share + fee_sat) * 1000 + left_msat, fee_sat * 1000, number),
        payer=payer,
        paid_sat=Sat(paid),
        miner_fee_sat=Sat(share),
        takes_all=more.pop("takes_all", left_msat == 0),
    )


def legs(posting: Any) -> dict[int, int]:
    return {leg.account_id: leg.amount_msat for leg in posting.legs}


def test_a_hold_and_its_end() -> None:
    """A 100,000 sat, cap 5,000, our fee 200: all of it is held, and counts."""
    counts = [Count("withdrawal", 105_200_000, {86_400: 10**9})]
    posting = held(IDS, withdrawal(105_200_000, 200_000), payer=ALICE, counts=counts)
    assert (posting.ref, posting.phase, posting.description) == ("wd:wd_1:hold", "hold", "rent")
    assert legs(posting) == {ALICE: 105_200_000, IDS.payout_queue: -105_200_000}
    assert posting.counted is not None
    assert list(posting.counted.counts) == counts
    assert posting.metadata == {"withdrawal": "wd_1", "fee_msat": 200_000, "fee_version": 3, "fee_level": 2}
    void = given_back(withdrawal(105_200_000, 200_000), "cancelled")
    assert (void.ref, void.phase, list(void.legs), list(void.relates_to)) == (
        *("wd:wd_1:void", "void", []),
        ["wd:wd_1:hold"],
    )


def test_a_batch_of_three_settles_to_the_satoshi() -> None:
    """M 330 sat as 110 each; Alice pays two members, one of them with the fees out of the amount."""
    members = [
        member(100_000, 110, 200, left_msat=4_890_000),
        member(49_790, 110, 100, number=2),
        member(20_000, 110, payer=BOB, number=3, left_msat=1_000),
    ]
    posting = broadcast(IDS, sent(330), members)
    assert (posting.ref, posting.phase) == ("batch:po_1:broadcast", "settle")
    assert list(posting.relates_to) == ["wd:wd_1:hold", "wd:wd_2:hold", "wd:wd_3:hold"]
    assert legs(posting) == {
        ALICE: 100_310_000 + 50_000_000,
        BOB: 20_110_000,
        IDS.hot: -(169_790_000 + 330_000),
        IDS.withdraw_fees: -300_000,
    }


def test_a_payout_that_pays_nobody_costs_us_its_fee() -> None:
    posting = broadcast(IDS, sent(250), [])
    assert (posting.phase, legs(posting)) == ("post", {IDS.miner_withdraw: 250_000, IDS.hot: -250_000})


def test_another_fee_is_ours_in_both_directions() -> None:
    dearer = fee_changed(IDS, sent(1_320), booked_sat=Sat(330), number=1)
    assert (dearer.ref, legs(dearer)) == ("batch:po_1:fee:1", {IDS.miner_withdraw: 990_000, IDS.hot: -990_000})
    cheaper = fee_changed(IDS, sent(330), booked_sat=Sat(1_320), number=2)
    assert (cheaper.ref, legs(cheaper)) == ("batch:po_1:fee:2", {IDS.miner_withdraw: -990_000, IDS.hot: 990_000})
    with pytest.raises(InvariantBroken, match="booked already"):
        fee_changed(IDS, sent(330), booked_sat=Sat(330), number=3)


def test_amounts_that_do_not_add_up_are_no_posting() -> None:
    with pytest.raises(InvariantBroken, match="the shares are 110 sat"):
        broadcast(IDS, sent(111), [member(1_000, 110)])
    with pytest.raises(InvariantBroken, match="would leave"):
        broadcast(IDS, sent(110), [member(1_000, 110, left_msat=-1_000)])
    with pytest.raises(InvariantBroken, match="would leave"):
        broadcast(IDS, sent(110), [member(1_000, 110, left_msat=1_000, takes_all=True)])
    with pytest.raises(InvariantBroken, match="not what is taken"):
        paid_in_books(IDS, withdrawal(10_000, 1_000), payer=ALICE, payee=BOB, paid_sat=Sat(10))


@given(st.lists(st.tuples(SATS, st.integers(0, 10**6), st.integers(0, 10**6), st.booleans()), min_size=1, max_size=20))
def test_every_batch_balances(parts: list[tuple[int, int, int, bool]]) -> None:
    members = [
        member(paid, share, fee, payer=BOB if others else ALICE, number=number)
        for number, (paid, share, fee, others) in enumerate(parts)
    ]
    miner_sat = sum(share for _paid, share, _fee, _others in parts)
    moved = legs(broadcast(IDS, sent(miner_sat), members))
    assert sum(moved.values()) == 0
    assert -moved[IDS.hot] == (sum(paid for paid, *_rest in parts) + miner_sat) * 1000


@given(
    amount=SATS,
    below_msat=st.integers(0, 999),
    fee=st.integers(0, 10**9),
    least=st.integers(0, 10**6),
    more=st.integers(0, 10**6),
)
def test_a_user_who_withdraws_all_has_nothing_left(
    amount: int, below_msat: int, fee: int, least: int, more: int
) -> None:
    wish = Wish(
        amount_sat=Sat(amount),
        balance_msat=Msat(amount * 1000 + below_msat),
        fee_from="amount",
        max_fee_sat=None,
        fee_msat=Msat(fee * 1000),
    )
    output = OnChain(dust_sat=Sat(294), least_share_sat=Sat(least), fee_cap_sat=Sat(10**7))
    if amount - fee - least < 294:
        return
    terms = on_chain(wish, output)
    share = min(least + more, amount - fee - 294)
    asked = withdrawal(terms.held_msat, terms.service_fee_msat)
    paid = Sat(amount - fee - share)
    assert asked.taken_msat(paid_sat=paid, miner_fee_sat=Sat(share), takes_all=True) == amount * 1000 + below_msat
