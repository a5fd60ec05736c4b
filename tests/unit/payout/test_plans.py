"""Plans of payouts, worked by hand: who goes, what each pays, and what the others are told."""

from collections.abc import Sequence

import pytest

from engine.domain.money import Msat, Sat
from engine.domain.withdrawal.coin_choice import Candidate
from engine.domain.withdrawal.plan import Item, Plan, plan
from engine.domain.withdrawal.script import output_script
from engine.domain.withdrawal.withdrawal import FeeFrom
from tests.helpers.address.pool import address_of
from tests.helpers.withdrawal.candidate import coins
from tests.helpers.withdrawal.rules import rules

pytestmark = pytest.mark.unit

CHANGE = output_script(address_of(1))
PAYEE, TAPROOT = output_script(address_of(2)), output_script(address_of(3, taproot=True))


def item(
    name: str,
    amount: int,
    *,
    fee_from: FeeFrom = "balance",
    fee_msat: int = 0,
    cap: int = 100_000,
    script: bytes = PAYEE,
) -> Item:
    return Item(
        id=name,
        script=script,
        amount_sat=Sat(amount),
        fee_from=fee_from,
        service_fee_msat=Msat(fee_msat),
        max_fee_sat=Sat(cap),
    )


def first(_: int) -> int:
    return 0


def planned(
    items: Sequence[Item], pool: Sequence[Candidate], rate: int = 10_000, *, vout: int = 0, younger: bool = True
) -> Plan:
    return plan(items, pool, rate, rules(), CHANGE, randrange=lambda _: vout, allow_younger=younger)


def reasons(found: Plan) -> dict[str, str]:
    return {each.id: each.reason for each in found.left_out}


def test_a_lone_member_pays_all_of_the_fee() -> None:
    """One input, two outputs: 141 virtual bytes at 10 sat."""
    found = planned([item("a", 50_000)], coins(200_000))
    (member,) = found.members
    assert (member.paid_sat, member.miner_fee_sat, member.vout) == (50_000, 1_410, 1)
    assert (found.fee_sat, found.change_sat, found.change_vout) == (1_410, 148_590, 0)


def test_a_fee_is_shared_by_output_weight() -> None:
    """One input, three outputs to p2wpkh, one to taproot: 246 virtual bytes at 3 sat; 124, 124 and 172 of 420."""
    found = planned([item("a", 50_000), item("b", 1_000), item("c", 9_000, script=TAPROOT)], coins(200_000), 3_000)
    assert found.fee_sat == 3 * 215
    assert [each.miner_fee_sat for each in found.members] == [191, 190, 264]
    assert found.ours_sat == 0


@pytest.mark.parametrize(("vout", "places"), [(0, [1, 2]), (1, [0, 2]), (2, [0, 1])])
def test_the_change_stands_anywhere(vout: int, places: list[int]) -> None:
    found = planned([item("a", 50_000), item("b", 60_000)], coins(200_000), vout=vout)
    assert [each.vout for each in found.members] == places
    assert found.change_vout == vout


def test_a_whole_balance_pays_its_fees_itself() -> None:
    """Held: 100,000.7 sat. Our fee is 500 sat and the part below a satoshi."""
    found = planned([item("a", 100_000, fee_from="amount", fee_msat=500_700)], coins(300_000))
    (member,) = found.members
    assert (member.paid_sat, member.miner_fee_sat) == (100_000 - 500 - 1_410, 1_410)


def test_a_whole_balance_can_be_all_that_there_is() -> None:
    """Five coins, their inputs paid out of the amount: 42 + 5 * 272 + 124 weight units."""
    found = planned([item("a", 100_000, fee_from="amount")], coins(20_000, 20_000, 20_000, 20_000, 20_000))
    (member,) = found.members
    assert (member.miner_fee_sat, found.fee_sat, found.change_sat) == (3_820, 3_820, 0)
    assert member.paid_sat == 100_000 - 3_820


def test_an_item_that_cannot_pay_its_share_is_left_out_and_the_others_go() -> None:
    found = planned([item("a", 50_000, cap=100), item("b", 60_000, cap=1_410), item("c", 10)], coins(200_000))
    assert [each.id for each in found.members] == ["b"]
    assert reasons(found) == {"a": "cap", "c": "dust"}
    assert {each.id: each.fatal for each in found.left_out} == {"a": None, "c": "amount_below_dust"}


def test_a_cap_counts_our_fee_too() -> None:
    wanted = item("a", 50_000, cap=1_500, fee_msat=90_000)
    assert planned([wanted], coins(200_000)).members
    assert reasons(planned([item("a", 50_000, cap=1_499, fee_msat=90_000)], coins(200_000))) == {"a": "cap"}


@pytest.mark.parametrize(
    ("wanted", "fatal"),
    [
        (item("a", 293), "amount_below_dust"),
        (item("a", 324, fee_from="amount"), "amount_below_dust"),
        (item("a", 325, fee_from="amount", fee_msat=1_000), "amount_below_dust"),
        (item("a", 50_000, cap=30), "fee_cap_too_low"),
        (item("a", 50_000, cap=31), None),
        (item("a", 329, script=TAPROOT), "amount_below_dust"),
        (item("a", 1_000, fee_from="amount"), None),
    ],
)
def test_an_item_fails_for_good_only_when_no_rate_could_help(wanted: Item, fatal: str | None) -> None:
    (left,) = planned([wanted], coins(200_000)).left_out
    assert left.fatal == fatal


def test_the_oldest_that_the_coins_pay_go_and_smaller_ones_beside_them() -> None:
    wanted = [item("a", 50_000), item("b", 500_000), item("c", 20_000), item("d", 90_000)]
    found = planned(wanted, coins(60_000, 70_000))
    assert [each.id for each in found.members] == ["a", "c"]
    assert reasons(found) == {"b": "money", "d": "money"}
    patient = planned(wanted, coins(60_000, 70_000), younger=False)
    assert [each.id for each in patient.members] == ["a"]
    assert reasons(patient) == {"b": "money", "c": "turn", "d": "turn"}


def test_without_coins_everybody_waits_and_is_told() -> None:
    found = planned([item("a", 50_000), item("b", 1_000)], [])
    assert (found.members, found.inputs) == ((), ())
    assert reasons(found) == {"a": "money", "b": "money"}
    assert planned([], coins(1_000)) == Plan(rate_sat_kvb=10_000)


def test_a_full_payout_leaves_the_rest_to_the_next_one() -> None:
    wanted = [item(f"wd_{number}", 2_000) for number in range(203)]
    found = planned(wanted, coins(1_000_000, 1_000_000))
    assert [each.id for each in found.members] == [each.id for each in wanted[:200]]
    assert set(reasons(found).values()) == {"full"}
    pool = [each for each in coins(1_000_000, 1_000_000) if each not in found.inputs]
    assert len(planned(wanted[200:], pool).members) == 3


def test_small_coins_are_joined_at_low_rates_and_we_pay_for_it() -> None:
    """At 1 sat/vB, where an input is expected to cost 10 later. The member pays as if one coin had gone."""
    pool = coins(200_000, *[3_000] * 30)

    def joined(rate: int, **changed: int) -> Plan:
        wanted = item("a", 50_000, cap=141 * rate // 1_000)
        return plan([wanted], pool, rate, rules(**changed), CHANGE, randrange=first)

    all_of_them = joined(1_000, consolidation__above_coins=2)
    assert len(all_of_them.inputs) == 30
    assert (all_of_them.shared_sat, all_of_them.ours_sat) == (141, 29 * 68)
    assert len(joined(1_000, consolidation__above_coins=25).inputs) == 7
    assert len(joined(1_000, consolidation__above_coins=31).inputs) == 1
    assert len(joined(20_000, consolidation__above_coins=2).inputs) == 1


def test_an_excess_without_change_is_ours_and_little() -> None:
    """110 virtual bytes. Change would cost 310 sat now and 680 later."""
    found = planned([item("a", 50_000)], coins(51_500))
    assert (found.change_sat, found.fee_sat, found.shared_sat, found.ours_sat) == (0, 1_500, 1_100, 400)


def test_rather_than_give_much_to_the_miners_change_may_be_small() -> None:
    found = planned([item("a", 50_000)], coins(56_410))
    assert (found.change_sat, found.shared_sat, found.ours_sat) == (5_000, 1_410, 0)


def test_caps_made_to_fail_one_after_the_other_end_soon() -> None:
    """Each one that is left out makes the share of the others a little more than the next cap."""
    wanted = [item(f"wd_{number}", 10_000, cap=320 + 6 * number) for number in range(100)]
    found = planned(wanted, coins(*[200_000] * 40))
    assert len(found.members) + len(found.left_out) == 100
