"""The API's description, from which clients are generated: stable names, one model per name, every reference resolves.

Apps call methods that a generator has named after `operationId`, and models by their names here. So both are chosen,
not computed from paths or modules. An operation has the name of its function, or the one in the table below. Changing a
name breaks apps (`tests/unit/http/test_openapi.py` holds the list).

FastAPI describes what it reads itself. We read bodies ourselves (`body.py`), so this module adds their models, and the
answers to bodies that cannot be read.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api.http import errors

Json = dict[str, Any]

_NAMES = {
    "POST /v1/payments": "make_payment",
    "POST /v1/payments/batch": "make_batch",
    "POST /v1/payments/quote": "quote_payment",
    "POST /v1/decode": "decode_destination",
    "POST /v1/withdraw-links": "make_withdraw_link",
    "GET /v1/withdraw-links": "list_withdraw_links",
    "GET /v1/withdraw-links/{link_id}": "show_withdraw_link",
    "DELETE /v1/withdraw-links/{link_id}": "delete_withdraw_link",
    "GET /v1/admin/limits": "show_limit_rules",
    "PUT /v1/admin/limits": "set_limit_rules",
    "GET /.well-known/lnurlp/{username}": "show_lnurl_offer",
    "GET /lnurlp/{username}/callback": "make_lnurl_invoice",
    "GET /lnurlp/{username}/verify/{payment_hash}": "verify_lnurl_invoice",
    "GET /lnurlw/{sealed_id}": "show_lnurl_withdrawal",
    "GET /lnurlw/{sealed_id}/callback": "claim_lnurl_withdrawal",
}
"""Where the function's name is not clear outside of its file, or not unique."""


def operation_id(route: APIRoute) -> str:
    """The name of an operation, which never changes."""
    method = min(route.methods or {"GET"})
    return _NAMES.get(f"{method} {route.path_format}", route.name)


def describe(app: FastAPI) -> Json:
    """The whole document: FastAPI's, with the bodies' models and with our problem documents in place of its errors."""
    document: Json = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    schemas: Json = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = errors.SCHEMA
    for operation in _operations(document):
        _lift_body(operation, schemas)
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            for status, answer in errors.unreadable().items():
                operation["responses"].setdefault(str(status), answer)
        found = operation["responses"].get("422", {}).get("content", {})
        if found.pop("application/json", None) and errors.MEDIA_TYPE not in found:
            operation["responses"]["422"] = errors.problems("invalid_request")[422]
    return document


def _operations(document: Json) -> Iterator[Json]:
    for path in document["paths"].values():
        yield from path.values()


def _lift_body(operation: Json, schemas: Json) -> None:
    """Move a body's model, and those that it names, to the document's models; leave a reference to it."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is None or "title" not in body["schema"]:
        return
    schema = dict(body["schema"])
    inner: Json = schema.pop("$defs", {})
    for name, model in {**inner, schema["title"]: schema}.items():
        if schemas.setdefault(name, model) != model:
            raise ValueError(f"two models of the API are called {name}")
    body["schema"] = {"$ref": errors.REF.format(model=schema["title"])}
