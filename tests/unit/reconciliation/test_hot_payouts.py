"""What payouts take from the hot wallet against what is booked, without rows."""

from dataclasses import replace

import pytest

from activities.reconciliation.payout import compare_payouts
from engine.bank.withdrawal.sent import SentVersion
from engine.domain.ids import PayoutId, Txid
from engine.domain.money import Sat

pytestmark = pytest.mark.unit

FIRST = SentVersion(
    payout=PayoutId("payout_1"),
    number=1,
    txid=Txid("ab" * 32),
    leaves_sat=Sat(5_300),
    booked_sat=Sat(5_300),
    over=False,
)
SECOND = replace(FIRST, number=2, txid=Txid("cd" * 32), leaves_sat=Sat(5_900))


def test_the_version_in_force_is_compared_with_what_is_booked() -> None:
    cases: list[tuple[dict[str, int | None], list[tuple[str, str, int]]]] = [
        ({FIRST.txid: None}, []),
        ({SECOND.txid: 5_900}, [("payout_fee", SECOND.txid, 600)]),
        ({}, [("payout_not_in_chain", SECOND.txid, -5_300)]),
    ]
    for in_force, wanted in cases:
        moving, found = compare_payouts([SECOND, FIRST], in_force)
        assert [(each.kind, each.txid, each.amount_sat) for each in moving] == wanted
        assert found == []
    unbooked = replace(FIRST, booked_sat=Sat(0))
    moving, _ = compare_payouts([unbooked], {FIRST.txid: None})
    assert [(each.kind, each.amount_sat) for each in moving] == [("payout_not_booked", 5_300)]
    assert compare_payouts([unbooked], {}) == ([], [])


def test_a_payout_that_is_over_has_nothing_in_flight() -> None:
    over = replace(FIRST, over=True)
    assert compare_payouts([over], {FIRST.txid: None}) == ([], [])
    for version, in_force, left_msat in ((over, {}, -5_300_000), (replace(over, booked_sat=Sat(1)), None, 5_299_000)):
        moving, (found,) = compare_payouts([version], {FIRST.txid: None} if in_force is None else in_force)
        assert (moving, found.kind, found.subject, found.amount_msat) == ([], "amount_differs", FIRST.txid, left_msat)


def test_two_versions_in_force_are_a_second_payment() -> None:
    moving, (found,) = compare_payouts([FIRST, SECOND], {FIRST.txid: None, SECOND.txid: None})
    assert (found.kind, found.subject, found.amount_msat) == ("coin_spent", FIRST.txid, 5_300_000)
    assert [(each.kind, each.amount_sat) for each in moving] == [("payout_fee", 600)]


def test_a_transaction_that_pays_the_wallet_itself_took_less_than_planned() -> None:
    moving, (found,) = compare_payouts([FIRST], {FIRST.txid: 300})
    assert (found.kind, found.amount_msat, moving) == ("amount_differs", -5_000_000, [])
