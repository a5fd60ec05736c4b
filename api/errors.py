"""The one table from the engine's errors to HTTP: RFC 9457 problem documents with a stable `code`.

    BadRequest        400      cannot be read            Invalid          422    read, and can never be right
    Unauthenticated   401      who are you               Conflict         409    key or name used for something else
    Forbidden         403      your key may not          Refused          409    a rule says no
    NotFound          404      not there, or not yours   Unavailable      503    nothing happened, try again
    TooLarge          413                                OutcomeUnknown   503    repeat with the same key and see
    RateLimited       429                                anything else    500    ours to mend

What is said about a 5xx is a fixed sentence: what really happened goes to the log, not to the caller.
"""

import http
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

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

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


class BadRequest(Invalid):
    """The request cannot even be read."""


class Unauthenticated(EngineError):
    """Nobody we know, or no longer."""

    default_code = "unauthenticated"


class Forbidden(EngineError):
    """Somebody we know, with a key that may not do this."""

    default_code = "forbidden"


class TooLarge(EngineError):
    """The body is larger than any that we read."""

    default_code = "request_too_large"


class RateLimited(EngineError):
    """More requests than this key may make; `retry_after_s` is in the fields."""

    default_code = "rate_limited"


_STATUS: Mapping[type[EngineError], int] = {
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
    "own_proposal": (403, "Nobody approves what he proposed himself"),
    "own_account": (403, "You cannot change your own account"),
    "not_found": (404, "There is no such thing for you"),
    "method_not_allowed": (405, "This method is not allowed here"),
    "idempotency_conflict": (409, "The Idempotency-Key was used for another request"),
    "username_taken": (409, "The username is taken"),
    "external_id_taken": (409, "The external id is taken"),
    "insufficient_funds": (409, "There is not enough money"),
    "limit_exceeded": (409, "A limit would be exceeded"),
    "fee_limit_exceeded": (409, "Our fee is above the cap"),
    "spend_limit_exceeded": (409, "What this key may spend would be exceeded"),
    "account_locked": (409, "The account is locked"),
    "account_closed": (409, "The account is closed"),
    "account_not_empty": (409, "The account is not empty"),
    "payee_closed": (409, "The payee's account is closed"),
    "invoice_already_paid": (409, "The invoice has been paid"),
    "invoice_cancelled": (409, "The invoice was cancelled"),
    "version_conflict": (409, "Somebody has changed it meanwhile"),
    "case_resolved": (409, "The case has been resolved"),
    "correction_decided": (409, "The correction has been decided"),
    "decision_open": (409, "There is a proposal for this payment already"),
    "decision_made": (409, "The decision has been made"),
    "payment_not_stuck": (409, "The payment can still end by itself"),
    "too_many_in_flight": (409, "Too many payments are in flight"),
    "invoice_unpayable": (409, "This invoice cannot be paid any more"),
    "payment_in_progress": (409, "The invoice is being paid"),
    "withdraw_link_closed": (409, "The withdraw link pays no more"),
    "request_timeout": (408, "The request did not arrive in time"),
    "request_too_large": (413, "The request is too large"),
    "invalid_destination": (422, "The destination cannot be paid"),
    "invoice_refused_by_node": (422, "Our node cannot read the invoice"),
    "wrong_network": (422, "The destination is on another network"),
    "keysend_disabled": (422, "No node is paid without an invoice"),
    "use_withdrawals": (422, "Use withdrawals for on-chain addresses"),
    "amount_required": (422, "An amount is required"),
    "amount_mismatch": (422, "The payee asks for another amount"),
    "max_fee_too_high": (422, "The maximum fee is too high"),
    "amount_too_small": (422, "The payee takes no amount as small"),
    "invoice_expired": (422, "The invoice has expired"),
    "self_payment": (422, "A wallet cannot pay itself"),
    "rate_limited": (429, "Too many requests"),
    "request_head_too_large": (431, "The request line and headers are too large"),
    "internal_error": (500, "Something went wrong on our side"),
    "node_unavailable": (503, "No Lightning node is available"),
    "price_unavailable": (503, "There is no fresh price"),
    "destination_unavailable": (503, "The destination does not answer"),
    "temporarily_unavailable": (503, "Temporarily unavailable"),
}
"""Every code that a problem document can carry, with the status it usually comes with, and a title for people."""

_PUBLIC_DETAIL = {
    "internal_error": "An error on our side has been recorded. It says nothing about the outcome: repeat with the same "
    "Idempotency-Key, or look at the resource.",
    "node_unavailable": "No Lightning node can take this now, and nothing has happened. Try again soon.",
    "price_unavailable": "A limit in another currency applies, and there is no fresh price for it. Nothing has "
    "happened. Try again later, with the same Idempotency-Key.",
    "destination_unavailable": "Whoever serves this destination did not answer as LNURL says, and nothing has "
    "happened. Try again later.",
    "temporarily_unavailable": "A part of the bank is away. Try again soon, with the same Idempotency-Key: then "
    "nothing is done twice.",
}


def install(app: FastAPI) -> None:
    """Answer every error with a problem document."""
    app.add_exception_handler(EngineError, _engine_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


def temporal_away(error: Exception) -> Unavailable:
    """Temporal did not answer, or a lazy client could not connect to it."""
    return Unavailable(f"Temporal: {error}", code="temporarily_unavailable")


def refused(code: str, detail: str, fields: Mapping[str, Any]) -> EngineError:
    """The error that a recorded refusal stands for: its code decides the kind."""
    status, _title = CODES.get(code, (409, ""))
    kind = {404: NotFound, 422: Invalid, 503: Unavailable}.get(status, Refused)
    return kind(detail, code=code, **fields)


def invalid_fields(errors: Sequence[Mapping[str, Any]]) -> Invalid:
    """The first three things that a schema found wrong, in words, without repeating what was sent."""
    sentences = []
    for error in errors[:3]:
        place = ".".join(str(part) for part in error["loc"] if part not in {"body", "query", "path", "header"})
        sentences.append(f"{place or 'body'}: {error['msg']}")
    first = errors[0]["loc"] if errors else ()
    return Invalid("; ".join(sentences)[:1000], field=str(first[-1])[:100] if first else None)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    fields: Mapping[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A problem document. Facts of the case never hide the standard members."""
    _usual, title = CODES.get(code, (status, code.replace("_", " ").capitalize()))
    standard = {
        "type": f"urn:millrace:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return JSONResponse({**(fields or {}), **standard}, status, headers, MEDIA_TYPE)


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation for OpenAPI: one entry per status, one example per code."""
    always = ("unauthenticated", "rate_limited", "internal_error", "temporarily_unavailable")
    return _responses([(CODES[code][0], code) for code in dict.fromkeys([*codes, *always])])


def unreadable() -> dict[int | str, dict[str, Any]]:
    """As `problems`, of every operation with a body: it is not JSON, or too large."""
    return _responses([(400, "invalid_request"), (413, "request_too_large")])


def _responses(said: Sequence[tuple[int, str]]) -> dict[int | str, dict[str, Any]]:
    responses: dict[int | str, dict[str, Any]] = {}
    for status, code in said:
        entry = responses.setdefault(
            status, {"description": http.HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"examples": {}}}}
        )
        example = {
            "type": f"urn:millrace:problem:{code}",
            "title": CODES[code][1],
            "status": status,
            "detail": "…",
            "code": code,
        }
        entry["content"][MEDIA_TYPE]["schema"] = {"$ref": REF.format(model="Problem")}
        entry["content"][MEDIA_TYPE]["examples"][code] = {"value": example}
    return responses


REF = "#/components/schemas/{model}"
"""Where the document has its models."""
SCHEMA = {
    "title": "Problem",
    "description": "RFC 9457. `code` is stable and meant for programs and translators; some add facts of the case.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(CODES)},
    },
    "additionalProperties": True,
}


def in_public_words(request: Request, error: EngineError) -> tuple[int, str, str]:
    """Status, code and sentence for the caller. What is ours to mend goes to the log instead."""
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    if status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
        request.state.problem = error.code
        return status, error.code, error.detail
    broken = status == http.HTTPStatus.INTERNAL_SERVER_ERROR
    place = getattr(request.scope.get("route"), "path", "?")  # as it is declared: what stands in a path may be a secret
    log.log(logging.ERROR if broken else logging.WARNING, "%s %s: %s", error.code, place, error, exc_info=broken)
    known = error.code if error.code in _PUBLIC_DETAIL else "temporarily_unavailable"
    code = "internal_error" if broken else known
    request.state.problem = code
    return status, code, _PUBLIC_DETAIL[code]


async def _engine_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EngineError)  # noqa: S101 - registered for nothing else
    status, code, detail = in_public_words(request, error)
    fields = error.fields if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else None
    return problem(status, code, detail, fields=fields, headers=_headers(request, status, error))


def _headers(request: Request, status: int, error: EngineError) -> dict[str, str]:
    headers = {"Idempotency-Replayed": "true"} if getattr(request.state, "replayed", False) else {}
    if status == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in {http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.TOO_MANY_REQUESTS}:
        headers["Retry-After"] = str(error.fields.get("retry_after_s") or RETRY_AFTER_S)
    return headers


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    return await _engine_error(request, invalid_fields(error.errors()))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the router says: no such path, no such method there."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    codes = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
    code = codes.get(error.status_code, "invalid_request")
    request.state.problem = code
    return problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))


async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error at %s %s", request.method, request.url.path, exc_info=error)
    return problem(500, "internal_error", _PUBLIC_DETAIL["internal_error"])
