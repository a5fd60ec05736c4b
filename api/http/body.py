"""Reading a request's body: strict JSON, after the caller has been authenticated.

A body is refused when it is larger than the limit (413), when it is not UTF-8 or not JSON (400), and when it does not
fit the schema (422). In it, whole numbers are JSON integers, no field is unknown, and no name comes twice. The content
comes with a hash over method, path and the canonical form of the body. The hash tells a repeat from another request
with the same key. The media type is ignored: every body is read as JSON, except the form of the public page
(`form.py`).
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from api.http.codes import BadRequest, TooLarge
from api.http.errors import REF, invalid_fields
from engine.domain.destination import MAX_LENGTH
from engine.domain.errors import Invalid
from engine.domain.money import MAX_AMOUNT_MSAT, msat_to_sat_floor

_MAX_DEPTH = 32
_MEMO_BYTES = 639
_LAST_YEAR = 2999


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not allowed")
    return text


def _fits_memo(text: str) -> str:
    if len(text.encode()) > _MEMO_BYTES:
        raise ValueError(f"at most {_MEMO_BYTES} bytes of UTF-8")
    return text


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a time in RFC 3339, as a string")  # noqa: TRY004 - what pydantic reads as a refusal
    return value


def _is_near(value: datetime) -> datetime:
    if value.year > _LAST_YEAR:
        raise ValueError(f"at most the year {_LAST_YEAR}")
    return value


Text = Annotated[str, AfterValidator(_no_nul)]
Memo = Annotated[Text, AfterValidator(_fits_memo), Field(description="At most 639 bytes of UTF-8.")]
ExternalId = Annotated[Text, Field(min_length=1, max_length=255, description="Your own reference.")]
Id = Annotated[Text, Field(min_length=1, max_length=100)]
Expiry = Annotated[AwareDatetime, BeforeValidator(_is_text), AfterValidator(_is_near), Field(strict=False)]
DestinationText = Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)]
AmountMsat = Annotated[int, Field(ge=1, le=MAX_AMOUNT_MSAT, description="In millisatoshi.")]
AmountSat = Annotated[int, Field(ge=1, le=msat_to_sat_floor(MAX_AMOUNT_MSAT), description="In satoshi.")]
FeeSat = Annotated[int, Field(ge=0, le=msat_to_sat_floor(MAX_AMOUNT_MSAT), description="In satoshi.")]


class Content(BaseModel):
    """The content of a body: no unknown fields, and no other types than the declared ones."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


C = TypeVar("C", bound=Content)


@dataclass(frozen=True, slots=True)
class Body(Generic[C]):
    """A body that was read and fits."""

    content: C
    hash: bytes
    """SHA-256 over method, path and canonical JSON."""


class JsonBody(Generic[C]):
    """Dependency: the body as this content. Put it after the caller and the key, so that these are checked first."""

    def __init__(self, content: type[C], *, max_bytes: int | None = None) -> None:
        """`max_bytes` replaces the limit of the settings."""
        self._content = content
        self._max_bytes = max_bytes

    async def __call__(self, request: Request) -> Body[C]:
        """Read it. Raises BadRequest, TooLarge, Invalid."""
        limit = self._max_bytes or request.app.state.resources.settings.max_body_bytes
        sent = _parse(await read_body(request, limit))
        canonical = _canonical(sent)
        try:
            content = self._content.model_validate(sent)
        except ValidationError as error:
            raise invalid_fields(error.errors(include_url=False, include_input=False, include_context=False)) from None
        return Body(content, hashlib.sha256(_named(request) + canonical).digest())


def documented(content: type[Content], **examples: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` for an operation that reads this content; `openapi.py` adds its model to the document."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": content.model_json_schema(ref_template=REF),
                    "examples": {name.replace("_", " "): {"value": value} for name, value in examples.items()},
                }
            },
        }
    }


def empty_hash(request: Request) -> bytes:
    """The hash of a request without a body."""
    return hashlib.sha256(_named(request)).digest()


def _named(request: Request) -> bytes:
    return f"{request.method}\n{request.url.path}\n".encode()


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, for every reader of one. Raises TooLarge, and BadRequest when the connection breaks off."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > limit:  # noqa: PLR2004 - digits of 2^64
        raise _too_large(limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise BadRequest("The body ended before its end.") from None
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"A body has at most {limit} bytes.", limit_bytes=limit)


def _parse(body: bytes) -> Any:  # noqa: ANN401 - JSON
    try:
        text = body.decode("utf-8")
        sent = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8.") from None
    except RecursionError:
        raise Invalid("The JSON is nested too deeply.") from None
    except ValueError:
        raise BadRequest("The body is not JSON.") from None
    if _depth(sent) > _MAX_DEPTH:
        raise Invalid("The JSON is nested too deeply.")
    return sent


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Invalid("A name comes twice in one object; which of the two is meant?")
    return found


def _no_constant(name: str) -> Any:  # noqa: ANN401 - never returns
    raise BadRequest(f"{name} is not JSON.")


def _depth(sent: Any) -> int:  # noqa: ANN401 - JSON
    """Levels of nesting, counted without recursion; stops counting where it is too deep anyway."""
    level, depth = [sent], 0
    while level and depth <= _MAX_DEPTH:
        level = [inner for outer in level for inner in _inside(outer)]
        depth += 1
    return depth


def _inside(value: Any) -> list[Any]:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _canonical(sent: Any) -> bytes:  # noqa: ANN401 - JSON
    try:
        return json.dumps(sent, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise Invalid("A string has half of a surrogate pair, which is no character.") from None
