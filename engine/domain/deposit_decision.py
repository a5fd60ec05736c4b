"""What two operators decide about a deposit where no rule can. Rules that need no books.

    kind        of which deposit                        what the approval does
    release     held, or below the minimum              moves it from liab:deposits-pending to its owner's wallet
    attribute   unattributed                            moves it from suspense:in to the named wallet
    forgive     reversed, with an open receivable       gives the receivable up: it stays a loss of the bank

A deposit must be booked, and its transaction in a block, before it can be released or attributed. A receivable is
forgiven only while the transaction has left chain and mempool. Otherwise the deposit is credited again, and the
receivable is repaid from it.
"""

from dataclasses import dataclass
from enum import StrEnum

from engine.domain.deposit import DepositStatus, Place, Sight
from engine.domain.errors import Invalid, Refused


class DepositDecisionKind(StrEnum):
    """What is decided."""

    RELEASE = "release"
    ATTRIBUTE = "attribute"
    FORGIVE = "forgive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decidable:
    """The facts of a deposit that a decision about it needs."""

    status: DepositStatus
    sight: Sight
    place: Place | None
    """Where the books put it. None: it is not booked."""
    is_released: bool
    has_receivable: bool
    """Whether a receivable of it is open."""


def check_wallet(kind: DepositDecisionKind, wallet_id: str | None) -> None:
    """Raises Invalid unless exactly an attribution names a wallet."""
    if (kind is DepositDecisionKind.ATTRIBUTE) != (wallet_id is not None):
        why = "needs" if wallet_id is None else "takes no"
        raise Invalid(f"'{kind}' {why} wallet_id.", field="wallet_id")


def require_waiting(kind: DepositDecisionKind, facts: Decidable) -> None:
    """Raises Refused (`deposit_not_waiting`) when the deposit does not wait for this decision."""
    if kind is DepositDecisionKind.FORGIVE:
        _require_lost(facts)
    elif facts.is_released:
        raise not_waiting("it is in a wallet already")
    elif facts.place is None:
        raise not_waiting(f"it is {facts.status}, and not in the books")
    elif facts.place != _PLACES[kind]:
        raise not_waiting(_ELSEWHERE[facts.place])
    elif facts.sight is not Sight.MINED:
        raise not_waiting("its transaction has just left its block, and the books follow")


def not_waiting(why: str) -> Refused:
    """The refusal of a decision that the deposit does not need now."""
    return Refused(f"This deposit does not wait for this decision: {why}.", code="deposit_not_waiting")


_PLACES: dict[DepositDecisionKind, Place] = {
    DepositDecisionKind.RELEASE: "pending",
    DepositDecisionKind.ATTRIBUTE: "suspense",
}
_ELSEWHERE: dict[Place, str] = {
    "wallet": "it was credited to its owner",
    "pending": "it has an owner, to whom it can be released",
    "suspense": "it has no owner, and must be attributed",
}


def _require_lost(facts: Decidable) -> None:
    if not facts.has_receivable:
        raise not_waiting("nothing is owed for it")
    if facts.place is None and facts.sight is not Sight.GONE:
        raise not_waiting("its transaction is back; the receivable is repaid when the deposit is credited again")
