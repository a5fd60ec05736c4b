"""Which coins pay: those that cost least, now and later.

What is minimised is what the wallet is worth less afterwards, beyond what it pays. A coin is worth its amount less what
its input costs at the long-term rate, and never less than nothing. So

    cost = fee + what the change costs to spend later - what the inputs would have cost later

Below the long-term rate every further input is a gain: small coins are joined, as many as may be. Above it the fewest
inputs win. Without change whatever is over goes to the miners, as part of the fee; that is chosen only when it costs
less than change would, or when change would not be useful. Change is never below `useful_change_sat`.

Up to 12 free coins every choice is tried, so that none is cheaper. Of more, promising orders are taken one coin after
the other, and exact matches without change are searched for with a bounded number of steps. A choice is found whenever
there is one; in a wallet of several kinds of scripts less than the fee of a virtual byte may be missed.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

from engine.domain.deposit import Outpoint
from engine.domain.money import Sat
from engine.domain.withdrawal.weight import MAX_STANDARD_WEIGHT, fee_sat, frame_weight

COST_PER_SAT = 4000
"""Costs are counted in parts of a satoshi: a rate per 1,000 vB times a weight, four to a vB, is a whole number."""
_EXHAUSTIVE = 12
_MATCH_STEPS = 3000
"""At a few microseconds each."""
_KINDS = 3
"""So many bounds of weight are tried beside none; there are four kinds of inputs."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A coin that may be spent."""

    outpoint: Outpoint
    amount_sat: Sat
    weight: int
    """Of the input that spends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What must be paid, at which rate, and what makes a good choice."""

    outputs_sat: int
    outputs_weights: tuple[int, ...]
    """Empty: everything becomes change."""
    change_weight: int
    change_input_weight: int
    """Of the input that will spend the change one day."""
    rate_sat_kvb: int
    long_term_rate: int
    useful_change_sat: int
    max_inputs: int
    forced: Sequence[Candidate] = ()
    """Spent in any case, also beyond `max_inputs`: a bump must conflict with what it replaces."""
    replaced_fee_sat: int = 0
    """What the replaced transactions pay. The fee exceeds it by the incremental rate (BIP 125, rules 3 and 4)."""
    incremental_rate: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """Coins that pay the target. What they hold is the outputs, the fee and the change."""

    coins: tuple[Candidate, ...]
    """The forced ones first, in their order."""
    fee_sat: Sat
    change_sat: Sat
    """0: there is no change."""
    weight: int


def choose(coins: Sequence[Candidate], target: Target) -> Choice | None:
    """The cheapest choice. None when the coins do not suffice within `max_inputs` and the standard weight.

    Of choices that cost the same, one with fewer coins, and then with smaller ones. The same arguments give the same
    choice.
    """
    forced = {each.outpoint: each for each in target.forced}
    free = [each for each in coins if each.outpoint not in forced] if forced else list(coins)
    search = _Search(target, tuple(forced.values()), free)
    if len(free) <= _EXHAUSTIVE:
        search.try_all()
    else:
        search.try_orders()
        search.try_matches()
    return search.choice()


def cost(choice: Choice, target: Target) -> int:
    """What is minimised, in parts of a satoshi (`COST_PER_SAT`)."""
    change = target.long_term_rate * target.change_input_weight if choice.change_sat else 0
    return COST_PER_SAT * choice.fee_sat + change - sum(_saved(each, target) for each in choice.coins)


def due_sat(weight: int, target: Target) -> Sat:
    """The least fee of a transaction of this weight: at its rate, and enough to replace what it replaces."""
    at_rate = fee_sat(weight, target.rate_sat_kvb)
    if not target.replaced_fee_sat:
        return at_rate
    return Sat(max(at_rate, target.replaced_fee_sat + fee_sat(weight, target.incremental_rate)))


def _saved(coin: Candidate, target: Target) -> int:
    """What spending it later would have cost. Nobody spends a coin that costs more than it holds."""
    return min(COST_PER_SAT * coin.amount_sat, target.long_term_rate * coin.weight)


class _Priced(NamedTuple):
    """What a set of coins comes to."""

    cost: int
    fee_sat: int
    change_sat: int
    weight: int


class _Sums(NamedTuple):
    """All that the price of a set depends on."""

    coins: int
    amount_sat: int
    weight: int
    saved: int


class _Search:
    """The best choice so far. Coins are known by their places."""

    def __init__(self, target: Target, forced: tuple[Candidate, ...], free: Sequence[Candidate]) -> None:
        self.target, self.forced, self.free = target, forced, free
        self.room = max(0, target.max_inputs - len(forced))
        self.outputs_weight = sum(target.outputs_weights)
        self.saved = [_saved(each, target) for each in free]
        self.values = [COST_PER_SAT * each.amount_sat - target.rate_sat_kvb * each.weight for each in free]
        """What each coin adds to what can be paid now."""
        self.burdens = [target.rate_sat_kvb * each.weight - saved for each, saved in zip(free, self.saved, strict=True)]
        """What each coin adds to the cost, if there is change; below 0 it is a gain."""
        self.start = _Sums(
            len(forced),
            sum(each.amount_sat for each in forced),
            sum(each.weight for each in forced),
            sum(_saved(each, target) for each in forced),
        )
        self.best: _Priced | None = None
        self.best_places: tuple[int, ...] = ()
        self.best_rank = (0, 0, 0)
        self.offer(self.start, ())

    def choice(self) -> Choice | None:
        if self.best is None:
            return None
        _, fee, change, weight = self.best
        coins = (*self.forced, *(self.free[each] for each in self.best_places))
        return Choice(coins, Sat(fee), Sat(change), weight)

    def plus(self, sums: _Sums, place: int, times: int = 1) -> _Sums:
        """With this coin; with -1 times, without it."""
        coin = self.free[place]
        return _Sums(
            sums.coins + times,
            sums.amount_sat + times * coin.amount_sat,
            sums.weight + times * coin.weight,
            sums.saved + times * self.saved[place],
        )

    def price(self, sums: _Sums) -> _Priced | None:
        """With or without change, whichever costs less. None: the set does not pay the target."""
        target, outputs = self.target, len(self.target.outputs_weights)
        over_sat = sums.amount_sat - target.outputs_sat
        if sums.coins == 0 or over_sat <= 0:
            return None
        weight = self.outputs_weight + sums.weight + frame_weight(sums.coins, outputs)
        found = None
        if outputs and weight <= MAX_STANDARD_WEIGHT and over_sat >= due_sat(weight, target):
            found = _Priced(COST_PER_SAT * over_sat - sums.saved, over_sat, 0, weight)
        if over_sat < target.useful_change_sat:
            return found
        weight = self.outputs_weight + target.change_weight + sums.weight + frame_weight(sums.coins, outputs + 1)
        due = due_sat(weight, target)
        price = COST_PER_SAT * due + target.long_term_rate * target.change_input_weight - sums.saved
        is_cheaper = found is None or price < found.cost
        if is_cheaper and weight <= MAX_STANDARD_WEIGHT and over_sat - due >= target.useful_change_sat:
            found = _Priced(price, due, over_sat - due, weight)
        return found

    def offer(self, sums: _Sums, places: Sequence[int]) -> None:
        """Keep it if it is better."""
        priced = self.price(sums)
        if priced is None:
            return
        rank = (priced.cost, sums.coins, sums.amount_sat)
        if self.best is None or rank < self.best_rank:
            self.best, self.best_rank, self.best_places = priced, rank, tuple(places)

    # Few coins

    def try_all(self) -> None:
        """Every set: each is one with a coin fewer, and that coin."""
        sums = [self.start]
        for place in range(len(self.free)):
            sums += [self.plus(each, place) for each in sums]
        for mask, each in enumerate(sums):
            if mask.bit_count() <= self.room:
                self.offer(each, [place for place in range(len(self.free)) if mask >> place & 1])

    # Many coins

    def try_orders(self) -> None:
        """The beginnings of promising orders, each as long as it may be; then with a coin less, and smaller coins."""
        for order in self._orders():
            self._scan(order)
        self._leave_one_out()
        for order in self.by_value:
            self._take_smaller(order)

    def _orders(self) -> Iterator[Sequence[int]]:
        yield from self.by_value
        if len({each.weight for each in self.free}) > 1:
            yield self._sorted(lambda place: self.burdens[place] * 2**20 // max(1, self.values[place]))
            yield self._sorted(lambda place: -self.values[place] // self.free[place].weight)
        small = self._sorted(lambda place: (self.burdens[place], self.free[place].amount_sat))[: self.room]
        gains = [each for each in small if self.burdens[each] < 0]
        if gains:
            fewest = self._fewest(gains)
            for count in dict.fromkeys((max(0, fewest - 1), fewest, fewest + 1, fewest + 2, 2 * fewest + 1)):
                head = self.by_value[0][:count]
                known = set(head)
                yield [*head, *(each for each in gains if each not in known)]

    @cached_property
    def by_value(self) -> list[Sequence[int]]:
        """The largest first: of all coins, and of the lighter ones."""
        order = sorted(range(len(self.free)), key=self.values.__getitem__, reverse=True)
        bounds = sorted({each.weight for each in self.free})[:-1][:_KINDS]
        return [order, *([each for each in order if self.free[each].weight <= most] for most in bounds)]

    def _sorted(self, key: Callable[[int], Any]) -> list[int]:
        return sorted(range(len(self.free)), key=key)

    def _needed(self, *, change: bool) -> int:
        """What the values of the free coins must come to; the counts of the transaction may add a little."""
        target = self.target
        weight = self.outputs_weight + self.start.weight + frame_weight(self.start.coins + 1, 1)
        needed_sat = target.outputs_sat - self.start.amount_sat
        if change:
            weight += target.change_weight
            needed_sat += target.useful_change_sat
        return COST_PER_SAT * needed_sat + target.rate_sat_kvb * weight

    def _fewest(self, gains: Sequence[int]) -> int:
        """How many of the largest coins must go before the small ones, so that together they pay."""
        needed = self._needed(change=True)
        large = [0, *accumulate(self.values[each] for each in self.by_value[0][: self.room])]
        small = [0, *accumulate(self.values[each] for each in gains)]
        for count, value in enumerate(large):
            if value + small[min(len(gains), self.room - count)] >= needed:
                return count
        return len(large) - 1

    def _scan(self, order: Sequence[int]) -> None:
        sums = self.start
        for count, place in enumerate(order[: self.room], start=1):
            sums = self.plus(sums, place)
            priced = self.price(sums)
            if priced is not None and (self.best is None or priced.cost <= self.best.cost):
                self.offer(sums, order[:count])

    def _leave_one_out(self) -> None:
        sums, places = self.start, self.best_places
        for place in places:
            sums = self.plus(sums, place)
        for place in places:
            self.offer(self.plus(sums, place, -1), [each for each in places if each != place])

    def _take_smaller(self, order: Sequence[int]) -> None:
        """As many coins, next to each other in size: the smallest that pay."""
        count = len(self.best_places)
        sums = [0, *accumulate(self.values[each] for each in order)]
        needed = self._needed(change=True)
        windows = range(len(order) - count + 1)
        first = bisect_left(windows, 1 - needed, key=lambda place: sums[place] - sums[place + count]) if count else 0
        for place in range(max(0, first - 2), min(first + 1, len(windows))):
            self._offer_all(order[place : place + count])

    def _offer_all(self, places: Sequence[int]) -> None:
        sums = self.start
        for place in places:
            sums = self.plus(sums, place)
        self.offer(sums, places)

    # Exact matches

    def try_matches(self) -> None:
        """Sets that pay almost exactly, without change: the larger coins first, the last one looked up."""
        missing, place = self._needed(change=False), 0
        if not self.target.outputs_weights or missing <= 0:
            return
        order = [each for each in self.by_value[0] if self.values[each] > 0]
        falling = [-self.values[each] for each in order]
        reach = [0, *accumulate(self.values[each] for each in order)]
        taken: list[int] = []
        path = [self.start]
        for _ in range(_MATCH_STEPS):
            room = self.room - len(taken)
            smaller = bisect_left(falling, 1 - missing, place)
            if place < smaller and room:
                last = order[smaller - 1]
                self.offer(self.plus(path[-1], last), [*(order[each] for each in taken), last])
            end = min(len(order), smaller + room)
            if reach[end] - reach[smaller] >= missing:
                taken.append(smaller)
                path.append(self.plus(path[-1], order[smaller]))
                missing += falling[smaller]
                place = smaller + 1
            elif taken:
                last = taken.pop()
                path.pop()
                missing -= falling[last]
                place = bisect_left(falling, falling[last] + 1, last)
            else:
                return
