"""Plans later versions of a payout: one that pays more, one without an input that is gone, a child that pulls.

Every later version shares an input with every earlier one that can still be confirmed, so at most one of them ever is.
An earlier one cannot be confirmed any more when the wallet has seen a transaction that conflicts with it as deep as the
rule says. Until then a version that shares nothing with it is not planned.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from activities.payout.story import Story
from engine.bank.chain.coin import FreeCoin
from engine.bank.withdrawal import coin, payout, version
from engine.clients.bitcoind.spending import Spending
from engine.domain.deposit import Outpoint
from engine.domain.errors import InvariantBroken
from engine.domain.withdrawal.coin_choice import Candidate, Choice, Target, choose
from engine.domain.withdrawal.script import input_weight, output_script, output_weight
from engine.domain.withdrawal.withdrawal import PayoutStatus, VersionKind
from engine.ledger.database import Connection, Pool, transaction

MOST_COINS = 20_000
_CHANGE_SCRIPTS = {"bech32": bytes([0, 20]) + bytes(20), "bech32m": bytes([0x51, 32]) + bytes(32)}
"""What the change will look like; only its size counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A version to plan."""

    kind: VersionKind
    rate_sat_kvb: int
    incremental: int
    forced: Sequence[version.Input]
    replaced_fee_sat: int
    """What the transactions in the mempool pay that it replaces."""


def change_weights(address_type: str) -> tuple[int, int]:
    """(the output, the input that will spend it one day)."""
    script = change_script(address_type)
    return output_weight(script), input_weight(script)


def change_script(address_type: str) -> bytes:
    """A script of the kind that change goes to. Raises KeyError for a type that the settings do not have."""
    return _CHANGE_SCRIPTS[address_type]


def candidates(coins: Sequence[FreeCoin], frozen: Collection[Outpoint] = ()) -> list[Candidate]:
    """Coins as the choice needs them. One whose input cannot be weighed is left alone."""
    found = []
    for each in coins:
        if each.address is None or each.outpoint in frozen:
            continue
        try:
            weight = input_weight(output_script(each.address))
        except (ValueError, InvariantBroken):
            continue
        found.append(Candidate(each.outpoint, each.amount_sat, weight))
    return found


async def plan_version(pool: Pool, spending: Spending, story: Story, wanted: Wanted, address_type: str) -> bool:
    """Store the plan of another version, its coins reserved. False when there is too little money for it.

    A repeat after the commit finds a version that is not signed, and plans none. So does a call that finds a block, or
    an operator who holds the payout.
    """
    frozen = await spending.frozen()
    row = story.payout
    async with transaction(pool) as conn:
        await coin.lock_coins_in_tx(conn, row.wallet)
        now = await payout.get_row_in_tx(conn, row.id)
        versions = await version.list_versions(conn, row.id)
        may_change = now.status in (PayoutStatus.SIGNED, PayoutStatus.BROADCAST) and not now.on_hold
        if len(versions) != len(story.versions) or not may_change:
            return True
        choice = await _choose_in_tx(conn, story, wanted, frozen, address_type)
        if choice is None:
            return False
        await version.add_in_tx(conn, _planned(story, wanted, choice))
        await coin.reserve_in_tx(conn, row.id, [each.outpoint for each in choice.coins])
        await payout.set_bump_in_tx(conn, row.id, None)
        await payout.note_problem_in_tx(conn, row.id, None)
    return True


async def _choose_in_tx(
    conn: Connection, story: Story, wanted: Wanted, frozen: Collection[Outpoint], address_type: str
) -> Choice | None:
    row, rules = story.payout, story.rules
    accounts = {each.account_id for each in story.members} if row.unlinked else None
    is_pure = not story.members and wanted.kind is VersionKind.BUMP
    free = (
        []
        if is_pure
        else await coin.list_free(
            conn, row.wallet, min_depth=rules.coins.min_depth, limit=MOST_COINS, unlinked_to=accounts
        )
    )
    output, spend = change_weights(address_type)
    weights = await _weights_in_tx(conn, wanted.forced)
    target = Target(
        outputs_sat=sum(each.paid_sat for each in story.members),
        outputs_weights=tuple(output_weight(each.script) for each in story.members),
        change_weight=output,
        change_input_weight=spend,
        rate_sat_kvb=wanted.rate_sat_kvb,
        long_term_rate=0,  # a bump joins no small coins
        useful_change_sat=rules.coins.useful_change_sat,
        max_inputs=rules.coins.max_inputs,
        forced=[Candidate(each.outpoint, each.amount_sat, weights[each.outpoint]) for each in wanted.forced],
        replaced_fee_sat=wanted.replaced_fee_sat,
        incremental_rate=wanted.incremental,
    )
    return choose(candidates(free, frozen), target)


async def _weights_in_tx(conn: Connection, inputs: Sequence[version.Input]) -> dict[Outpoint, int]:
    addresses = await coin.read_addresses(conn, [each.outpoint for each in inputs])
    return {each.outpoint: input_weight(output_script(addresses[each.outpoint])) for each in inputs}


def _planned(story: Story, wanted: Wanted, choice: Choice) -> version.NewVersion:
    """The change keeps its address and its place, where the current version has one."""
    current = story.current
    vout = None
    if choice.change_sat:
        vout = secrets.randbelow(len(story.members) + 1) if current.change_vout is None else current.change_vout
    return version.NewVersion(
        payout_id=story.payout.id,
        number=len(story.versions) + 1,
        kind=wanted.kind,
        rate_sat_kvb=wanted.rate_sat_kvb,
        fee_sat=choice.fee_sat,
        weight=choice.weight,
        change_sat=choice.change_sat,
        change_vout=vout,
        change_address=current.change_address if vout is not None else None,
        inputs=[version.Input(outpoint=each.outpoint, amount_sat=each.amount_sat) for each in choice.coins],
    )


async def note_problem(pool: Pool, story: Story, problem: str | None) -> None:
    """For operators: why it does not go on."""
    async with transaction(pool) as conn:
        row = await payout.get_row_in_tx(conn, story.payout.id)
        if row.status not in (PayoutStatus.FINAL, PayoutStatus.DISSOLVED):
            await payout.note_problem_in_tx(conn, row.id, problem)
