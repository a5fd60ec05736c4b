"""A withdrawal: what a user asks to be paid on chain, from the hold until a block has it.

    status      meaning                                                    money
    queued      asked for; waits for approval, its turn, or coins          held: amount, fee cap and our fee
    batched     has its place in a payout, which may be signed             held
    broadcast   the network has the payout                                 amount, own share and our fee have left
    confirmed   a block has it; or a user of ours was paid in the books    the same
    cancelled   taken back before it had a place                           all of the hold is free again
    failed      refused by an operator or by a rule, with `failure`        all of the hold is free again

A withdrawal is cancelled only while it is queued: the row decides, under its lock. A reorganisation takes a confirmed
one back to `broadcast`, and its payout is broadcast again.
"""

from enum import StrEnum
from typing import Literal

FeeFrom = Literal["balance", "amount"]
"""Whether the fees come on top of the amount, or are taken from it."""


class WithdrawalStatus(StrEnum):
    """What the user sees."""

    QUEUED = "queued"
    BATCHED = "batched"
    BROADCAST = "broadcast"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDED = (WithdrawalStatus.CONFIRMED, WithdrawalStatus.CANCELLED, WithdrawalStatus.FAILED)


class Speed(StrEnum):
    """How soon. Each speed has its own batcher, window and fee target."""

    FAST = "fast"
    STANDARD = "standard"
    SLOW = "slow"


class PayoutStatus(StrEnum):
    """How far a payout is. What is signed counts as known to the world."""

    PLANNED = "planned"
    SIGNED = "signed"
    BROADCAST = "broadcast"
    CONFIRMED = "confirmed"
    FINAL = "final"
    DISSOLVED = "dissolved"


class PayoutKind(StrEnum):
    """`child` spends the change of another payout, to pull it into a block; `consolidation` joins small coins."""

    BATCH = "batch"
    CHILD = "child"
    CONSOLIDATION = "consolidation"


class VersionKind(StrEnum):
    """`bump` pays more for the same inputs or more; `rebuild` does without an input that is gone for good."""

    FIRST = "first"
    BUMP = "bump"
    REBUILD = "rebuild"
