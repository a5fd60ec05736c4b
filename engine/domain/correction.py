"""What a manual entry may be: a correction of the books, or capital of the bank itself. Rules that need no books.

    kind         who decides        entries                                                    references
    correction   two of finance     Dr debit · Cr suspense, then Dr suspense · Cr credit       corr:<id>:out, :in
                                    Dr debit · Cr credit, where one side is suspense already   corr:<id>
    capital      two of treasury    Dr asset · Cr capital, or the other way round              capital:<id>

A correction passes through suspense, so that one account shows all that was ever corrected by hand.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from engine.domain.errors import Invalid
from engine.domain.ids import CorrectionId
from engine.domain.money import Msat

ACTOR: Final = "correction"
"""Who posts it, and who writes its trail where no operator does."""
THROUGH: Final = "suspense:recon:operator"
"""The account that every correction passes; it is empty after each."""
OPEN_FOR: Final = timedelta(days=7)
"""How long a proposal waits for a second operator."""
LONGEST_REASON: Final = 1000

_CAPITAL = "equity:capital"
_OUTBOX = "liab:outbox"


class CorrectionKind(StrEnum):
    """What is entered by hand."""

    CORRECTION = "correction"
    CAPITAL = "capital"


class CorrectionStatus(StrEnum):
    """Where it stands. Only `proposed` and `approved` ever change.

    `refused`: two operators wanted it, and the books did not take it.
    """

    PROPOSED = "proposed"
    APPROVED = "approved"
    POSTED = "posted"
    REFUSED = "refused"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What two operators agree on: so much from one account to another, and why."""

    id: CorrectionId
    kind: str
    debit: str
    credit: str
    amount_msat: Msat
    reason: str
    case_id: str | None
    reference: str | None
    proposed_by: str
    workflow_id: str


def check_sides(kind: CorrectionKind, debit: str, credit: str) -> None:
    """Raises Invalid for two accounts between which nothing may be entered by hand."""
    sides = {debit, credit}
    if len(sides) == 1:
        raise Invalid("Debit and credit are the same account.", field="credit")
    if _OUTBOX in sides:
        raise Invalid(f"{_OUTBOX} belongs to the holds: only what ends a hold moves it.", field=_field(debit, _OUTBOX))
    if kind is CorrectionKind.CORRECTION and _CAPITAL in sides:
        raise Invalid(f"{_CAPITAL} moves by the kind 'capital' only.", field=_field(debit, _CAPITAL))
    if kind is CorrectionKind.CAPITAL and not (
        _CAPITAL in sides and any(side.startswith("asset:") for side in sides - {_CAPITAL})
    ):
        raise Invalid(f"Capital comes or goes between {_CAPITAL} and an asset account.", field="debit")


def transfer_refs(correction: CorrectionId, kind: CorrectionKind, debit: str, credit: str) -> list[str]:
    """The references of its transfers, in the order in which they are posted."""
    if kind is CorrectionKind.CAPITAL:
        return [f"capital:{correction}"]
    if is_suspense(debit) or is_suspense(credit):
        return [f"corr:{correction}"]
    return [f"corr:{correction}:out", f"corr:{correction}:in"]


def is_suspense(code: str) -> bool:
    """Whether money waits on this account for somebody's decision."""
    return code.startswith("suspense:")


def _field(debit: str, code: str) -> str:
    return "debit" if debit == code else "credit"
