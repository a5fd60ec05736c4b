"""The search attributes of every workflow, by which operators find runs in the Temporal UI. Add, never rename."""

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from engine.domain.ids import AccountId, PaymentHash, Txid
from engine.domain.money import Sat

STATUS = SearchAttributeKey.for_keyword("MillraceStatus")
KIND = SearchAttributeKey.for_keyword("MillraceKind")
ACCOUNT = SearchAttributeKey.for_keyword("AccountId")
PAYMENT_HASH = SearchAttributeKey.for_keyword("PaymentHash")
TXID = SearchAttributeKey.for_keyword("Txid")
AMOUNT_SAT = SearchAttributeKey.for_int("AmountSat")
NEEDS_OPERATOR = SearchAttributeKey.for_bool("NeedsOperator")
ALL: tuple[SearchAttributeKey[str] | SearchAttributeKey[int] | SearchAttributeKey[bool], ...] = (
    *(STATUS, KIND, ACCOUNT, PAYMENT_HASH, TXID),
    AMOUNT_SAT,
    NEEDS_OPERATOR,
)
"""All search attributes that our Temporal must know. A worker adds the missing ones."""


def build(
    *,
    kind: str,
    status: str | None = None,
    account: AccountId | None = None,
    payment_hash: PaymentHash | None = None,
    txid: Txid | None = None,
    amount_sat: Sat | None = None,
    needs_operator: bool | None = None,
) -> TypedSearchAttributes:
    """The attributes of a workflow at its start. None leaves an attribute out."""
    pairs: list[SearchAttributePair[str] | SearchAttributePair[int] | SearchAttributePair[bool]] = [
        SearchAttributePair(KIND, kind)
    ]
    if status is not None:
        pairs.append(SearchAttributePair(STATUS, status))
    if account is not None:
        pairs.append(SearchAttributePair(ACCOUNT, account))
    if payment_hash is not None:
        pairs.append(SearchAttributePair(PAYMENT_HASH, payment_hash))
    if txid is not None:
        pairs.append(SearchAttributePair(TXID, txid))
    if amount_sat is not None:
        pairs.append(SearchAttributePair(AMOUNT_SAT, amount_sat))
    if needs_operator is not None:
        pairs.append(SearchAttributePair(NEEDS_OPERATOR, needs_operator))
    return TypedSearchAttributes(pairs)
