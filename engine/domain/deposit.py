"""A deposit: an output of a transaction that pays an address of ours, from the first sight of it until it lies deep.

    status          meaning                                                        money
    pending         seen, not deep enough yet                                      held: incoming, not spendable
    credited        at the depth for its amount                                    in the wallet
    reversed        credited once, and taken back by a reorganisation              taken from the wallet again
    dropped         replaced by a payment to somebody else, or evicted             none; it may come back
    below_minimum   too small to be credited                                       liab:deposits-pending, once deep
    held            more than the limits of the account's level let in             liab:deposits-pending
    unattributed    for no address in our books, or for a closed account           suspense:in

The pump writes down what the chain shows (`Facts`). The one function `next_step` says what the books must do about it,
whatever was missed in between: facts and books may be any number of steps apart. A deposit stays watched until its
block lies `deep`. A reorganisation that reaches deeper is followed all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Literal, cast

from engine.domain.ids import DepositId, Txid
from engine.domain.money import MAX_AMOUNT_MSAT, Msat, Sat, msat_to_sat_floor
from engine.domain.rulebook_content import check_names, read_object, read_whole, wrong

COINBASE_DEPTH = 101
"""A coinbase output can be spent in the 101st block, its own counted (consensus: COINBASE_MATURITY is 100)."""
MAX_DEPTH = 1000
MAX_STEPS = 20
_MAX_SAT = msat_to_sat_floor(MAX_AMOUNT_MSAT)

Place = Literal["wallet", "pending", "suspense"]
"""Where a posting puts a deposit: the user's wallet, liab:deposits-pending or suspense:in."""


class DepositStatus(StrEnum):
    """What a deposit's owner sees."""

    PENDING = "pending"
    CREDITED = "credited"
    REVERSED = "reversed"
    DROPPED = "dropped"
    BELOW_MINIMUM = "below_minimum"
    HELD = "held"
    UNATTRIBUTED = "unattributed"


_AFTER_THE_END = (DepositStatus.DROPPED, DepositStatus.REVERSED)
"""What a deposit is called once it has left both chain and mempool."""


NEEDS_OPERATOR = (DepositStatus.HELD, DepositStatus.UNATTRIBUTED)
"""What two operators must decide."""


class Sight(StrEnum):
    """Where the transaction was when the pump last looked. `gone`: neither in a block nor in the mempool."""

    MEMPOOL = "mempool"
    MINED = "mined"
    GONE = "gone"


class Step(StrEnum):
    """What the books must do next."""

    WAIT = "wait"
    HOLD = "hold"
    DROP = "drop"
    BOOK = "book"
    REVERSE = "reverse"
    FINISH = "finish"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outpoint:
    """An output of a transaction."""

    txid: Txid
    vout: int

    def __str__(self) -> str:
        return f"{self.txid}:{self.vout}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposited:
    """The facts of a deposit that its postings share."""

    id: DepositId
    outpoint: Outpoint
    amount_msat: Msat
    workflow_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block by its place and its hash."""

    height: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about a deposit, and what the books have of it."""

    sight: Sight
    block_height: int | None
    required: int
    deep: int
    below_minimum: bool
    has_owner: bool
    hold_ref: str | None
    """The open hold that shows it as incoming."""
    hold_is_of_this: bool
    """Whether that hold is of the present outpoint and amount: a replacement may have another."""
    is_booked: bool
    """Whether asset:hot has it."""
    booking_is_of_this: bool
    """Whether it has it as the present outpoint: after a reorganisation, a replacement may be mined in its place."""
    is_final: bool
    status: DepositStatus


def next_step(facts: Facts, tip_height: int) -> Step:
    """What the books must do next, by what the chain shows now. `wait` when they agree."""
    deep_enough = depth(facts.block_height, tip_height) >= (facts.deep if facts.is_booked else facts.required)
    if facts.is_booked:
        if facts.sight is not Sight.MINED or not facts.booking_is_of_this:
            return Step.REVERSE
        return Step.FINISH if deep_enough and not facts.is_final else Step.WAIT
    if facts.hold_ref is not None and not facts.hold_is_of_this:
        return Step.DROP
    if facts.sight is Sight.GONE:
        return Step.WAIT if facts.hold_ref is None and facts.status in _AFTER_THE_END else Step.DROP
    return Step.BOOK if deep_enough else _shown(facts)


def _shown(facts: Facts) -> Step:
    """Whether it must be shown as incoming: it is not yet, or it has come back."""
    came_back = facts.status is DepositStatus.DROPPED
    is_missing = facts.hold_ref is None and facts.has_owner and not facts.below_minimum
    return Step.HOLD if came_back or is_missing else Step.WAIT


def depth(block_height: int | None, tip_height: int) -> int:
    """Confirmations: 1 in the tip itself, 0 outside of the chain."""
    return 0 if block_height is None else max(0, tip_height - block_height + 1)


# The rulebook


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthStep:
    """Amounts up to and including this one need so many confirmations. The last step has no end."""

    up_to_sat: Sat | None
    confirmations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositRules:
    """A version of the rulebook "deposits", read."""

    depths: Sequence[DepthStep]
    minimum_sat: Sat
    deep: int
    unpaid_addresses: int

    def required(self, amount_sat: Sat, *, coinbase: bool) -> int:
        """The confirmations at which this amount is credited."""
        wanted = next(step for step in self.depths if step.up_to_sat is None or amount_sat <= step.up_to_sat)
        return max(wanted.confirmations, COINBASE_DEPTH) if coinbase else wanted.confirmations

    def watched_until(self, required: int) -> int:
        """The confirmations after which a deposit is left alone."""
        return max(self.deep, required)


def parse_rules(content: Mapping[str, Any]) -> DepositRules:
    """Read a rulebook's content. Raises Invalid, naming the place, for the first deviation.

    {"confirmations": [{"up_to_sat": 1000000, "confirmations": 1}, {"confirmations": 6}],
     "minimum_sat": 1000, "deep": 6, "unpaid_addresses": 1000}
    """
    check_names(content, {"confirmations", "minimum_sat", "deep", "unpaid_addresses"}, "content")
    listed = content.get("confirmations")
    if not isinstance(listed, list) or not 1 <= len(cast("list[object]", listed)) <= MAX_STEPS:
        raise wrong("confirmations", f"must be a list of 1 to {MAX_STEPS} steps")
    items = cast("list[object]", listed)
    depths = [
        _read_step(item, f"confirmations[{place}]", last=place == len(items) - 1) for place, item in enumerate(items)
    ]
    for place, (before, after) in enumerate(pairwise(depths), 1):
        here = f"confirmations[{place}]"
        if before.up_to_sat is None or (after.up_to_sat is not None and after.up_to_sat <= before.up_to_sat):
            raise wrong(here, "does not begin where the step before it ends: the amounts must grow")
        if after.confirmations < before.confirmations:
            raise wrong(here, "asks fewer confirmations of a larger amount")
    return DepositRules(
        depths=depths,
        minimum_sat=Sat(read_whole(content.get("minimum_sat", 0), "minimum_sat", 0, _MAX_SAT)),
        deep=read_whole(content.get("deep", 6), "deep", 1, MAX_DEPTH),
        unpaid_addresses=read_whole(content.get("unpaid_addresses", 1000), "unpaid_addresses", 1, 100_000),
    )


def _read_step(item: object, place: str, *, last: bool) -> DepthStep:
    given = read_object(item, place)
    check_names(given, {"up_to_sat", "confirmations"}, place)
    if ("up_to_sat" in given) == last:
        raise wrong(
            place, "is the last step, which has no up_to_sat" if last else "has no up_to_sat: only the last has none"
        )
    return DepthStep(
        up_to_sat=None if last else Sat(read_whole(given["up_to_sat"], f"{place}.up_to_sat", 1, _MAX_SAT)),
        confirmations=read_whole(given.get("confirmations"), f"{place}.confirmations", 1, MAX_DEPTH),
    )
