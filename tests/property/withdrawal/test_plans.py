"""Plans of payouts: every satoshi has its place, no cap is exceeded, everybody is told, and the oldest comes first."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.money import Msat, Sat, msat_to_sat_floor, sat_to_msat
from engine.domain.withdrawal.coin_choice import Candidate
from engine.domain.withdrawal.plan import Item, Plan, plan
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.script import dust_sat, output_script, output_weight
from engine.domain.withdrawal.share import split
from engine.domain.withdrawal.weight import fee_sat, transaction_weight
from tests.helpers.address.pool import address_of
from tests.helpers.withdrawal.candidate import coin, held_sat
from tests.helpers.withdrawal.rules import rules

pytestmark = pytest.mark.property

CHANGE = output_script(address_of(1))
SCRIPTS = [output_script(address_of(2)), output_script(address_of(3, taproot=True)), bytes.fromhex("6002751e")]
AMOUNTS = st.integers(200, 3_000) | st.integers(1_000, 100_000) | st.integers(1, 10**8)
RATES = st.sampled_from([1_000, 1_001, 5_000, 10_000, 33_333, 400_000])


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    found = []
    for number in range(draw(st.integers(0, 8))):
        fee_from = draw(st.sampled_from(["balance", "amount"]))
        below_sat = draw(st.integers(0, 999)) if fee_from == "amount" else 0
        found.append(
            Item(
                id=f"wd_{number}",
                script=draw(st.sampled_from(SCRIPTS)),
                amount_sat=Sat(draw(AMOUNTS)),
                fee_from="balance" if fee_from == "balance" else "amount",
                service_fee_msat=Msat(sat_to_msat(Sat(draw(st.sampled_from([0, 50, 2_000])))) + below_sat),
                max_fee_sat=Sat(draw(st.sampled_from([0, 100, 300, 2_500, 100_000, 10**6]))),
            )
        )
    return found


@st.composite
def pools(draw: st.DrawFn, wanted: list[Item]) -> list[Candidate]:
    """Often about enough, or exactly what is wanted."""
    amounts = draw(st.lists(AMOUNTS, max_size=7))
    if draw(st.sampled_from([False, bool(wanted)])):
        amounts.append(sum(each.amount_sat for each in wanted))
    return [coin(number, each, draw(st.sampled_from([272, 230]))) for number, each in enumerate(amounts)]


RULES = st.builds(
    lambda inputs, outputs, long_term: rules(
        coins__max_inputs=inputs,
        max_outputs=outputs,
        coins__long_term_rate=long_term,
        consolidation__above_coins=2,
    ),
    st.sampled_from([1, 3, 200]),
    st.sampled_from([2, 200]),
    st.sampled_from([1_000, 10_000]),
)


def check(found: Plan, wanted: Sequence[Item], pool: Sequence[Candidate], rate: int) -> None:
    by_id = {each.id: each for each in wanted}
    told = [*(each.id for each in found.members), *(each.id for each in found.left_out)]
    assert sorted(told) == sorted(by_id)
    assert all(each.why for each in found.left_out)
    if not found.members:
        assert (found.inputs, found.fee_sat, found.change_sat, found.change_vout) == ((), 0, 0, None)
        return

    paid = sum(each.paid_sat for each in found.members)
    assert held_sat(found.inputs) == paid + found.change_sat + found.fee_sat
    assert len({each.outpoint for each in found.inputs}) == len(found.inputs)
    assert set(found.inputs) <= set(pool)

    outputs = [output_weight(each.script) for each in found.members]
    change = [output_weight(CHANGE)] if found.change_sat else []
    assert found.weight == transaction_weight([each.weight for each in found.inputs], [*outputs, *change])
    assert found.fee_sat >= fee_sat(found.weight, rate)
    assert found.ours_sat >= 0
    assert [each.miner_fee_sat for each in found.members] == split(found.shared_sat, outputs)
    assert found.change_sat == 0 or found.change_sat >= dust_sat(CHANGE)

    places = [each.vout for each in found.members]
    assert (found.change_vout is None) == (found.change_sat == 0)
    assert sorted([*places, *([found.change_vout] if found.change_vout is not None else [])]) == list(
        range(len(outputs) + len(change))
    )
    assert places == sorted(places)
    assert [each.place for each in found.members] == list(range(len(outputs)))
    for each in found.members:
        item = by_id[each.id]
        fees_msat = sat_to_msat(each.miner_fee_sat) + item.service_fee_msat
        assert each.script == item.script
        assert each.paid_sat >= dust_sat(item.script)
        if item.fee_from == "balance":
            assert each.paid_sat == item.amount_sat
            assert fees_msat <= sat_to_msat(item.max_fee_sat)
        else:
            assert each.paid_sat == item.amount_sat - msat_to_sat_floor(Msat(fees_msat))
            assert msat_to_sat_floor(Msat(fees_msat)) <= item.max_fee_sat


@settings(max_examples=150, deadline=None)
@given(st.data(), RATES, RULES)
def test_a_plan_accounts_for_every_satoshi_and_every_item(
    data: st.DataObject, rate: int, book: WithdrawalRules
) -> None:
    wanted = data.draw(items())
    pool = data.draw(pools(wanted))
    found = plan(
        wanted,
        pool,
        rate,
        book,
        CHANGE,
        randrange=lambda most: data.draw(st.integers(0, most - 1)),
        allow_younger=data.draw(st.booleans()),
    )
    check(found, wanted, pool, rate)
    assert len(found.members) <= book.max_outputs
    assert {each.reason for each in found.left_out if each.fatal} <= {"dust", "cap"}


@settings(max_examples=80, deadline=None)
@given(st.data(), RATES, RULES)
def test_nobody_goes_before_an_older_one_that_waits_for_coins(
    data: st.DataObject, rate: int, book: WithdrawalRules
) -> None:
    wanted = data.draw(items())
    pool = data.draw(pools(wanted))
    found = plan(wanted, pool, rate, book, CHANGE, randrange=lambda _: 0, allow_younger=False)
    order = [each.id for each in wanted]
    waiting = [order.index(each.id) for each in found.left_out if each.reason == "money"]
    going = [order.index(each.id) for each in found.members]
    assert len(waiting) <= 1
    assert not waiting or max(going, default=-1) < waiting[0]
    turns = [order.index(each.id) for each in found.left_out if each.reason == "turn"]
    assert not turns or min(turns) > waiting[0]


@settings(max_examples=80, deadline=None)
@given(st.data(), RATES)
def test_younger_ones_never_take_the_place_of_one_that_could_go(data: st.DataObject, rate: int) -> None:
    """Whoever would go without those that are younger also goes beside them, unless a share grows above a cap."""
    wanted = data.draw(items())
    pool = data.draw(pools(wanted))
    wide = [each for each in wanted if each.max_fee_sat >= 100_000]
    found = plan(wide, pool, rate, rules(), CHANGE, randrange=lambda _: 0)
    for length in range(1, len(wide)):
        alone = plan(wide[:length], pool, rate, rules(), CHANGE, randrange=lambda _: 0)
        if len(alone.members) == length:
            refused = {each.id for each in found.left_out if each.reason == "money"}
            assert not refused.intersection(each.id for each in alone.members)


@settings(max_examples=150, deadline=None)
@given(st.data(), RATES)
def test_the_fee_is_all_the_members_where_there_is_change_and_nothing_is_joined(data: st.DataObject, rate: int) -> None:
    """Below `consolidation.above_coins` no coin is joined for later: Σ share is what the network counts as the fee."""
    wanted = data.draw(items())
    pool = data.draw(pools(wanted))
    found = plan(wanted, pool, rate, rules(), CHANGE, randrange=lambda _: 0)
    assert not found.change_sat or found.ours_sat == 0
