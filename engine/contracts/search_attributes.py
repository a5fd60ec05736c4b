"""The search attributes of every workflow, by which operators find runs in the Temporal UI. Add, never rename."""

from temporalio.common import SearchAttributeKey

STATUS = SearchAttributeKey.for_keyword("MillraceStatus")
KIND = SearchAttributeKey.for_keyword("MillraceKind")
ACCOUNT = SearchAttributeKey.for_keyword("AccountId")
PAYMENT_HASH = SearchAttributeKey.for_keyword("PaymentHash")
AMOUNT_SAT = SearchAttributeKey.for_int("AmountSat")
NEEDS_OPERATOR = SearchAttributeKey.for_bool("NeedsOperator")
