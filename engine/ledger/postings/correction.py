"""The postings of a correction and of capital. A: amount.

    event        reference          entries
    taken out    corr:<id>:out      Dr debit A · Cr suspense:recon:operator A
    put in       corr:<id>:in       Dr suspense:recon:operator A · Cr credit A
    corrected    corr:<id>          Dr debit A · Cr credit A, where one of them is a suspense account
    capital      capital:<id>       Dr asset A · Cr equity:capital A, or the other way round

The first two are posted in one transaction, so neither exists without the other. The metadata of each name proposer and
approver, and its description is the reason. Pure: values and account ids in, postings out.
"""

from collections.abc import Mapping

from engine.domain.correction import ACTOR, THROUGH, Correction, CorrectionKind, transfer_refs
from engine.domain.errors import InvariantBroken
from engine.ledger.book import Fact, Posting, credit, debit


def corrected(correction: Correction, approved_by: str | None, ids: Mapping[str, int]) -> list[Posting]:
    """The postings of a correction, for one transaction. `ids` has its two accounts and the suspense account.

    Raises InvariantBroken without a second operator.
    """
    if approved_by is None or approved_by == correction.proposed_by:
        raise InvariantBroken(f"{correction.id} has no second operator")
    refs = transfer_refs(correction.id, CorrectionKind(correction.kind), correction.debit, correction.credit)
    stops = [correction.debit, correction.credit] if len(refs) == 1 else [correction.debit, THROUGH, correction.credit]
    return [
        _moved(correction, approved_by, ref, ids[debited], ids[credited])
        for ref, debited, credited in zip(refs, stops[:-1], stops[1:], strict=True)
    ]


def _moved(correction: Correction, approved_by: str, ref: str, debited: int, credited: int) -> Posting:
    facts: dict[str, Fact] = {
        "correction": correction.id,
        "proposed_by": correction.proposed_by,
        "approved_by": approved_by,
        "case": correction.case_id,
        "reference": correction.reference,
    }
    return Posting(
        ref=ref,
        template="capital_moved" if correction.kind == CorrectionKind.CAPITAL else "corrected",
        phase="post",
        actor=ACTOR,
        workflow_id=correction.workflow_id,
        description=correction.reason,
        metadata={name: fact for name, fact in facts.items() if fact is not None},
        legs=[debit(debited, correction.amount_msat), credit(credited, correction.amount_msat)],
    )
