"""Every refusal, by kind and by code. This module imports no framework.

BadRequest        400      cannot be read            Invalid          422    read, and can never be right
Unauthenticated   401      who are you               Conflict         409    key or name used for something else
Forbidden         403      your key may not          Refused          409    a rule says no
NotFound          404      not there, or not yours   Unavailable      503    nothing happened, try again
TooLarge          413                                OutcomeUnknown   503    repeat with the same key and see
RateLimited       429                                anything else    500    our fault
"""

from collections.abc import Mapping
from typing import Any

from engine.domain.errors import (
    Conflict,
    EngineError,
    Invalid,
    InvariantBroken,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unavailable,
)


class BadRequest(Invalid):
    """The request cannot even be read."""


class Unauthenticated(EngineError):
    """There is no API key, or no valid one."""

    default_code = "unauthenticated"


class Forbidden(EngineError):
    """The API key is valid, and does not allow this."""

    default_code = "forbidden"


class TooLarge(EngineError):
    """The body is larger than the limit."""

    default_code = "request_too_large"


class RateLimited(EngineError):
    """More requests than this key may make; `retry_after_s` is in the fields."""

    default_code = "rate_limited"


STATUS: Mapping[type[EngineError], int] = {
    BadRequest: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Refused: 409,
    TooLarge: 413,
    Invalid: 422,
    RateLimited: 429,
    InvariantBroken: 500,
    Unavailable: 503,
    OutcomeUnknown: 503,
}

CODES: Mapping[str, tuple[int, str]] = {
    "invalid_request": (422, "The request is not valid"),
    "idempotency_key_required": (400, "An Idempotency-Key is required"),
    "unauthenticated": (401, "Authentication is required"),
    "forbidden": (403, "This key may not do this"),
    "own_proposal": (403, "You cannot approve your own proposal"),
    "own_account": (403, "You cannot decide about your own account"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "This method is not allowed here"),
    "idempotency_conflict": (409, "The Idempotency-Key was used for another request"),
    "username_taken": (409, "The username is taken"),
    "external_id_taken": (409, "The external id is taken"),
    "insufficient_funds": (409, "The balance is too low"),
    "limit_exceeded": (409, "A limit would be exceeded"),
    "fee_limit_exceeded": (409, "The fee is above the cap"),
    "spend_limit_exceeded": (409, "The spend limit of this key would be exceeded"),
    "account_locked": (409, "The account is locked"),
    "account_closed": (409, "The account is closed"),
    "account_not_empty": (409, "The account is not empty"),
    "payee_closed": (409, "The payee's account is closed"),
    "invoice_already_paid": (409, "The invoice has been paid"),
    "invoice_cancelled": (409, "The invoice was cancelled"),
    "version_conflict": (409, "It has been changed meanwhile"),
    "case_resolved": (409, "The case has been resolved"),
    "correction_decided": (409, "The correction has been decided"),
    "decision_open": (409, "There is an open proposal already"),
    "decision_made": (409, "The decision has been made"),
    "deposit_not_waiting": (409, "The deposit does not wait for this decision"),
    "already_batched": (409, "The withdrawal is in a batch"),
    "withdrawal_ended": (409, "The withdrawal has ended"),
    "withdrawal_not_waiting": (409, "The withdrawal does not wait for this decision"),
    "payout_not_waiting": (409, "The payout does not wait for this decision"),
    "mix_pool_insufficient": (409, "There are not enough unlinked coins"),
    "payment_not_stuck": (409, "The payment can still end by itself"),
    "too_many_in_flight": (409, "Too many payments are in flight"),
    "invoice_unpayable": (409, "This invoice cannot be paid any more"),
    "payment_in_progress": (409, "The invoice is being paid"),
    "withdraw_link_closed": (409, "The withdraw link does not pay any more"),
    "request_timeout": (408, "The request did not arrive in time"),
    "request_too_large": (413, "The request is too large"),
    "invalid_destination": (422, "The destination cannot be paid"),
    "invoice_refused_by_node": (422, "Our node cannot read the invoice"),
    "wrong_network": (422, "The destination is on another network"),
    "keysend_disabled": (422, "Payments without an invoice are disabled"),
    "use_withdrawals": (422, "Use withdrawals for on-chain addresses"),
    "amount_required": (422, "An amount is required"),
    "amount_mismatch": (422, "The payee asks for another amount"),
    "max_fee_too_high": (422, "The maximum fee is too high"),
    "amount_too_small": (422, "The amount is too small"),
    "dust_amount": (422, "No node would relay so small an output"),
    "invoice_expired": (422, "The invoice has expired"),
    "self_payment": (422, "A wallet cannot pay itself"),
    "rate_limited": (429, "Too many requests"),
    "request_head_too_large": (431, "The request line and headers are too large"),
    "internal_error": (500, "Something went wrong on our side"),
    "node_unavailable": (503, "No Lightning node is available"),
    "no_address_ready": (503, "No address is ready"),
    "price_unavailable": (503, "No fresh price is available"),
    "destination_unavailable": (503, "The destination does not answer"),
    "temporarily_unavailable": (503, "Temporarily unavailable"),
}
"""Every code that a problem document can carry, with the status it usually comes with, and a title for people."""


def refused(code: str, detail: str, fields: Mapping[str, Any]) -> EngineError:
    """The error that a recorded refusal stands for: its code decides the kind."""
    status, _title = CODES.get(code, (409, ""))
    kind = {404: NotFound, 422: Invalid, 503: Unavailable}.get(status, Refused)
    return kind(detail, code=code, **fields)
