"""Errors as RFC 9457 problem documents with a stable `code` (`codes.py`).

The detail of a 5xx is a fixed sentence: what really happened goes to the log, not to the caller.
"""

import http
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.http.codes import CODES, STATUS
from api.http.idempotency_key import REPLAYED
from engine.domain.errors import EngineError, Invalid

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


_PUBLIC_DETAIL = {
    "internal_error": "An error on our side has been recorded. It does not tell the outcome: repeat the request with "
    "the same Idempotency-Key, or read the resource.",
    "node_unavailable": "No Lightning node can take this now. Nothing has happened. Try again soon.",
    "no_address_ready": "No address is ready at the moment. Nothing has happened. Try again soon.",
    "price_unavailable": "A limit in another currency applies, and there is no fresh price for it. Nothing has "
    "happened. Try again later, with the same Idempotency-Key.",
    "destination_unavailable": "The server of this destination did not answer as LNURL requires. Nothing has "
    "happened. Try again later.",
    "temporarily_unavailable": "A part of the bank does not answer. Try again soon with the same Idempotency-Key, so "
    "that nothing is done twice.",
}


def install(app: FastAPI) -> None:
    """Answer every error with a problem document."""
    app.add_exception_handler(EngineError, _engine_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


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
    """A problem document. `fields` never replace the standard members."""
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
    "description": "RFC 9457. `code` is stable and meant for programs and translators. Some codes add facts.",
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
    """Status, code and sentence for the caller. The details of our own faults go to the log instead."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    if status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
        request.state.problem = error.code
        return status, error.code, error.detail
    broken = status == http.HTTPStatus.INTERNAL_SERVER_ERROR
    place = getattr(request.scope.get("route"), "path", "?")  # as it is declared: the path itself may hold a secret
    log.log(logging.ERROR if broken else logging.WARNING, "%s %s: %s", error.code, place, error, exc_info=broken)
    known = error.code if error.code in _PUBLIC_DETAIL else "temporarily_unavailable"
    code = "internal_error" if broken else known
    request.state.problem = code
    return status, code, _PUBLIC_DETAIL[code]


async def _engine_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EngineError)  # noqa: S101 - registered for nothing else
    status, code, detail = in_public_words(request, error)
    fields = error.fields if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else None
    return problem(status, code, detail, fields=fields, headers=_headers(status, error))


def _headers(status: int, error: EngineError) -> dict[str, str]:
    headers = {REPLAYED: "true"} if error.is_replay else {}
    if status == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in {http.HTTPStatus.SERVICE_UNAVAILABLE, http.HTTPStatus.TOO_MANY_REQUESTS}:
        headers["Retry-After"] = str(error.fields.get("retry_after_s") or RETRY_AFTER_S)
    return headers


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    return await _engine_error(request, invalid_fields(error.errors()))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """Errors of the router: no such path, or no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    codes = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
    code = codes.get(error.status_code, "invalid_request")
    request.state.problem = code
    return problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))


async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error at %s %s", request.method, request.url.path, exc_info=error)
    return problem(500, "internal_error", _PUBLIC_DETAIL["internal_error"])
