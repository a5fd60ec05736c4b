"""Who goes into a payout, what each pays for it, and with which coins: the plan, before anything is signed.

    Σ inputs   = Σ paid + change + fee of the transaction
    Σ share    = what the lightest transaction for these members costs at the rate, split by output weight
    our part   = fee - Σ share: more inputs than it takes, or what is left over where there is no change

Nobody pays for our housekeeping, so no cap depends on it. A member with `fee_from = balance` is paid its amount; one
with `fee_from = amount` is paid what share and our fee leave of it. Whoever's cap or dust does not allow its share is
left out, and the others are planned again without him. Too little money: the oldest that the coins can pay go, and
younger, smaller ones beside them only while the caller allows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from engine.domain.money import Msat, Sat, amount_text, msat_to_sat_floor, sat_to_msat
from engine.domain.withdrawal.coin_choice import COST_PER_SAT, Candidate, Choice, Target, choose, cost
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.script import dust_sat, input_weight, output_weight
from engine.domain.withdrawal.share import split
from engine.domain.withdrawal.weight import fee_sat, transaction_weight
from engine.domain.withdrawal.withdrawal import FeeFrom

Reason = Literal["dust", "cap", "money", "turn", "full"]
"""Its payment would be dust; its share is above its cap; coins are missing; an older one comes first; no more room."""
BELOW_DUST = "amount_below_dust"
CAP_TOO_LOW = "fee_cap_too_low"
"""Codes of items that no payout can ever take."""
_ROUNDS = 6
_FILLS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A withdrawal that waits for its turn."""

    id: str
    script: bytes
    amount_sat: Sat
    fee_from: FeeFrom
    service_fee_msat: Msat
    """Ours, on top of the share. Of a whole balance, also its part below a satoshi."""
    max_fee_sat: Sat
    """The most that share and our fee may come to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One that goes."""

    id: str
    place: int
    vout: int
    """Its output: the place, or the next one after the change."""
    script: bytes
    paid_sat: Sat
    miner_fee_sat: Sat


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """One that does not go now."""

    id: str
    reason: Reason
    why: str
    """For people."""
    fatal: str | None = None
    """The code of its failure, when no rate that the rules allow could help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A payout. Without members there is none."""

    members: tuple[Member, ...] = ()
    inputs: tuple[Candidate, ...] = ()
    fee_sat: Sat = Sat(0)
    """Of the transaction: the shares of its members, and our part."""
    change_sat: Sat = Sat(0)
    change_vout: int | None = None
    weight: int = 0
    rate_sat_kvb: int = 0
    left_out: tuple[LeftOut, ...] = ()
    """In the order in which they were given."""

    @property
    def shared_sat(self) -> Sat:
        """What the members pay of the fee."""
        return Sat(sum(each.miner_fee_sat for each in self.members))

    @property
    def ours_sat(self) -> Sat:
        """What we pay of the fee."""
        return Sat(self.fee_sat - self.shared_sat)


def plan(
    items: Sequence[Item],
    coins: Sequence[Candidate],
    rate_sat_kvb: int,
    rules: WithdrawalRules,
    change_script: bytes,
    *,
    randrange: Callable[[int], int],
    allow_younger: bool = True,
) -> Plan:
    """The next payout of these items, which come oldest first. One without members: nobody can go.

    While some were left out as "full" and others go, the caller plans again with the coins that are left.
    `change_script` is any of the kind that change goes to. `randrange(n)` gives a number below n: the place of change.
    """
    planner = _Planner(coins, rate_sat_kvb, rules, change_script, allow_younger=allow_younger)
    hopeless = [planner.hopeless(each) for each in items]
    able = [each for each, failure in zip(items, hopeless, strict=True) if failure is None]
    left_out = {failure.id: failure for failure in hopeless if failure is not None}
    waiting, turns = able, 0
    draft = planner.fund(waiting[: rules.max_outputs])
    while over := planner.unwilling(draft, to_the_end=turns >= _ROUNDS):
        left_out |= {each.id: each for each in over}
        waiting = [each for each in able if each.id not in left_out]
        draft = planner.fund(waiting[: rules.max_outputs])
        turns += 1
    members = {each.id for each in draft.items}
    for place, each in enumerate(waiting):
        if each.id not in members:
            left_out[each.id] = planner.unfunded(each, draft, is_full=place >= rules.max_outputs)
    return _finished(draft, rate_sat_kvb, tuple(left_out[each.id] for each in items if each.id in left_out), randrange)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """Members with a choice of coins that pays them. Without a choice nobody goes."""

    items: Sequence[Item] = ()
    paid: Sequence[int] = ()
    shares: Sequence[Sat] = ()
    choice: Choice | None = None
    blocked: Item | None = None
    """The oldest one that the coins cannot pay."""


class _Planner:
    def __init__(
        self,
        coins: Sequence[Candidate],
        rate_sat_kvb: int,
        rules: WithdrawalRules,
        change_script: bytes,
        *,
        allow_younger: bool,
    ) -> None:
        self.coins, self.rate, self.rules = coins, rate_sat_kvb, rules
        self.change_script, self.allow_younger = change_script, allow_younger

    # Items by themselves

    def hopeless(self, item: Item) -> LeftOut | None:
        """Whether it fails for good: even its own output, at the lowest rate of the rules, costs too much."""
        least = Sat(self.rules.rate.floor * output_weight(item.script) // COST_PER_SAT)
        if _paid(item, least) < dust_sat(item.script):
            return self._dust(item, least, BELOW_DUST)
        return None if _within_cap(item, least) else self._above_cap(item, least, CAP_TOO_LOW)

    def unwilling(self, draft: _Draft, *, to_the_end: bool) -> list[LeftOut]:
        """Whose share is too high for his cap or his amount.

        `to_the_end` adds those for whom it becomes so without the others, and the coins as they are. Fewer members need
        fewer coins, so that is too strict; but caps made for it would have us plan once for each of them.
        """
        found: list[LeftOut] = []
        items, shares = list(draft.items), list(draft.shares)
        inputs = [each.weight for each in draft.choice.coins] if draft.choice else []
        while items:
            refusals = [self._refusal(item, share) for item, share in zip(items, shares, strict=True)]
            over = [each for each in refusals if each is not None]
            found += over
            items = [item for item, refusal in zip(items, refusals, strict=True) if refusal is None]
            if not over or not to_the_end:
                break
            outputs = [output_weight(each.script) for each in items]
            shares = split(fee_sat(transaction_weight(inputs, outputs), self.rate), outputs) if items else []
        return found

    def _refusal(self, item: Item, share: Sat) -> LeftOut | None:
        if _paid(item, share) < dust_sat(item.script):
            return self._dust(item, share)
        return None if _within_cap(item, share) else self._above_cap(item, share)

    def _dust(self, item: Item, share: Sat, fatal: str | None = None) -> LeftOut:
        why = (
            f"after fees ({amount_text(sat_to_msat(share))} to miners at {self.rate} sat/kvB) less is left than the "
            f"{dust_sat(item.script)} sat that are relayed"
        )
        return LeftOut(id=item.id, reason="dust", why=why, fatal=fatal)

    def _above_cap(self, item: Item, share: Sat, fatal: str | None = None) -> LeftOut:
        why = (
            f"its share of {share:,} sat at {self.rate} sat/kvB and our fee of {amount_text(item.service_fee_msat)} "
            f"are above its cap of {item.max_fee_sat:,} sat"
        )
        return LeftOut(id=item.id, reason="cap", why=why, fatal=fatal)

    def unfunded(self, item: Item, draft: _Draft, *, is_full: bool) -> LeftOut:
        if draft.blocked is not None and item.id == draft.blocked.id:
            return LeftOut(id=item.id, reason="money", why="the coins that may be spent now do not pay it")
        if draft.blocked is not None and not self.allow_younger:
            return LeftOut(id=item.id, reason="turn", why="an older one that waits for coins comes first")
        if is_full:
            return LeftOut(id=item.id, reason="full", why="this payout is full: it goes with the next one")
        return LeftOut(id=item.id, reason="money", why="the coins that may be spent now do not pay it")

    # Money

    def fund(self, items: Sequence[Item]) -> _Draft:
        """As many as the coins pay: the longest beginning, and then younger ones that still fit beside it."""
        room = self._room_sat(items)
        needed = [0, *accumulate(_needs(each, self.rate) for each in items)]
        high = max(length for length, need in enumerate(needed) if need <= room + length)
        best, low = self._draft(items[:high]), 0
        if best.choice is not None or high == 0:
            low = high
        while high - low > 1:
            middle = (low + high) // 2
            draft = self._draft(items[:middle])
            best, low, high = (draft, middle, high) if draft.choice else (best, low, middle)
        if low == len(items):
            return best
        if self.allow_younger:
            best = self._fill(best, items[low + 1 :], room)
        return replace(best, blocked=items[low])

    def _fill(self, best: _Draft, younger: Sequence[Item], room: int) -> _Draft:
        """The largest step first: all that may fit by their sum, then half of them, until the coins pay."""
        room -= sum(_needs(each, self.rate) for each in best.items)
        fitting: list[Item] = []
        for each in younger:
            if _needs(each, self.rate) <= room:
                fitting.append(each)
                room -= _needs(each, self.rate)
        for _ in range(_FILLS):
            if not fitting:
                break
            draft = self._draft([*best.items, *fitting])
            if draft.choice is not None:
                return draft
            fitting = fitting[: len(fitting) // 2]
        return best

    def _room_sat(self, items: Sequence[Item]) -> int:
        """The most that coins can pay together. Where fees come out of an amount, that of an input may do so too."""
        rate = self.rate if all(each.fee_from == "balance" for each in items) else 0
        values = sorted((COST_PER_SAT * each.amount_sat - rate * each.weight for each in self.coins), reverse=True)
        return sum(each for each in values[: self.rules.coins.max_inputs] if each > 0) // COST_PER_SAT

    def _draft(self, items: Sequence[Item]) -> _Draft:
        """Coins for exactly these. Shares decide what some are paid, that decides the coins, and these the shares."""
        outputs = [output_weight(each.script) for each in items]
        spends = input_weight(self.change_script)
        most_inputs = min(len(self.coins), self.rules.coins.max_inputs)
        guesses = [fee_sat(transaction_weight([spends] * each, outputs), self.rate) for each in (most_inputs, 1)]
        shared, known = guesses.pop(), None
        for _ in range(_ROUNDS if items else 0):
            found = self._lean(outputs, self._paid_together(items, outputs, shared))
            if found is None and known is None and guesses:
                shared = guesses.pop()
                continue
            if found is None:
                break
            known, due = found, fee_sat(found.weight, self.rate)
            if due == shared or all(each.fee_from == "balance" for each in items):
                return self._settled(items, outputs, found, due)
            shared = due
        return _Draft() if known is None else self._settled_with(items, outputs, known)

    def _settled_with(self, items: Sequence[Item], outputs: Sequence[int], known: Choice) -> _Draft:
        """With these coins, whatever they leave: the share that fits them is found within a few turns."""
        shared = fee_sat(known.weight, self.rate)
        for _ in range(_ROUNDS):
            target = self.target(outputs, self._paid_together(items, outputs, shared))
            found = choose((), replace(target, forced=known.coins))
            if found is None:
                break
            due = fee_sat(found.weight, self.rate)
            if due >= shared:
                return self._settled(items, outputs, found, shared)
            shared = due
        return _Draft()

    def _settled(self, items: Sequence[Item], outputs: Sequence[int], lean: Choice, shared: Sat) -> _Draft:
        shares = split(shared, outputs)
        paid = [_paid(item, share) for item, share in zip(items, shares, strict=True)]
        choice = self._best_for_us(lean, outputs, sum(paid), shared)
        return _Draft(items=items, paid=paid, shares=shares, choice=choice)

    def _paid_together(self, items: Sequence[Item], outputs: Sequence[int], shared: Sat) -> int:
        """By what a share is for now: one that leaves nothing is refused afterwards."""
        return sum(max(0, _paid(item, share)) for item, share in zip(items, split(shared, outputs), strict=True))

    def _lean(self, outputs: Sequence[int], outputs_sat: int) -> Choice | None:
        """The lowest fee. Rather than giving much to the miners, change may be smaller than is useful."""
        found = choose(self.coins, self.target(outputs, outputs_sat))
        if found is not None and found.change_sat:
            return found
        change_cost = self.rate * output_weight(self.change_script)
        change_cost += self.rules.coins.long_term_rate * input_weight(self.change_script)
        if found is not None and (found.fee_sat - fee_sat(found.weight, self.rate)) * COST_PER_SAT <= change_cost:
            return found
        small = max(dust_sat(self.change_script), change_cost // COST_PER_SAT)
        return choose(self.coins, replace(self.target(outputs, outputs_sat), useful_change_sat=small)) or found

    def _best_for_us(self, lean: Choice, outputs: Sequence[int], outputs_sat: int, shared: Sat) -> Choice:
        """The same outputs at the lowest cost now and later. What it pays more now is ours.

        More coins than it takes are spent only of those above `consolidation.above_coins`: what is joined cannot be
        spent before the next block, and the payouts until then need coins too. Below that number the fee
        of a transaction with change is the sum of the shares, to the satoshi.
        """
        target = self.target(outputs, outputs_sat, self.rules.coins.long_term_rate)
        spare = max(0, len(self.coins) - self.rules.consolidation.above_coins)
        target = replace(target, max_inputs=min(target.max_inputs, len(lean.coins) + spare))
        found = choose(self.coins, target)
        if found is None or found.fee_sat < shared or cost(found, target) >= cost(lean, target):
            return lean
        return lean if found.change_sat and found.fee_sat > shared and not spare else found

    def target(self, outputs: Sequence[int], outputs_sat: int, long_term_rate: int = 0) -> Target:
        coins = self.rules.coins
        return Target(
            outputs_sat=outputs_sat,
            outputs_weights=tuple(outputs),
            change_weight=output_weight(self.change_script),
            change_input_weight=input_weight(self.change_script),
            rate_sat_kvb=self.rate,
            long_term_rate=long_term_rate,
            useful_change_sat=coins.useful_change_sat,
            max_inputs=coins.max_inputs,
        )


def _paid(item: Item, share: Sat) -> int:
    """What reaches the payee; below 0 when the fees are more than the amount."""
    if item.fee_from == "balance":
        return item.amount_sat
    return item.amount_sat - share - msat_to_sat_floor(item.service_fee_msat)


def _within_cap(item: Item, share: Sat) -> bool:
    """The part below a satoshi of a whole balance is no fee that a cap could refuse."""
    if item.fee_from == "balance":
        return sat_to_msat(share) + item.service_fee_msat <= sat_to_msat(item.max_fee_sat)
    return share + msat_to_sat_floor(item.service_fee_msat) <= item.max_fee_sat


def _needs(item: Item, rate_sat_kvb: int) -> int:
    """About what it takes from the coins."""
    if item.fee_from == "balance":
        return item.amount_sat + fee_sat(output_weight(item.script), rate_sat_kvb)
    return item.amount_sat - msat_to_sat_floor(item.service_fee_msat)


def _finished(draft: _Draft, rate_sat_kvb: int, left_out: tuple[LeftOut, ...], randrange: Callable[[int], int]) -> Plan:
    if draft.choice is None:
        return Plan(rate_sat_kvb=rate_sat_kvb, left_out=left_out)
    choice = draft.choice
    change_vout = randrange(len(draft.items) + 1) if choice.change_sat else None
    members = tuple(
        Member(
            id=item.id,
            place=place,
            vout=place if change_vout is None or place < change_vout else place + 1,
            script=item.script,
            paid_sat=Sat(draft.paid[place]),
            miner_fee_sat=draft.shares[place],
        )
        for place, item in enumerate(draft.items)
    )
    return Plan(
        members=members,
        inputs=choice.coins,
        fee_sat=choice.fee_sat,
        change_sat=choice.change_sat,
        change_vout=change_vout,
        weight=choice.weight,
        rate_sat_kvb=rate_sat_kvb,
        left_out=left_out,
    )
