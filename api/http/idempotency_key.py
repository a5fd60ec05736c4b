"""The `Idempotency-Key` header, and how an answer says that it was given before."""

import re
from typing import Annotated

from fastapi import Header, Request, Response

from api.http.codes import BadRequest

HEADER = "Idempotency-Key"
MEANING = "1 to 255 visible ASCII characters, unique per account for ever: a repeat gets the first answer."
REPLAYED = "Idempotency-Replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def optional_key(
    request: Request, _documented: Annotated[str | None, Header(alias=HEADER, description=MEANING)] = None
) -> str | None:
    """The key, if one was sent. Raises BadRequest for a malformed one."""
    sent = request.headers.getlist(HEADER)
    if not sent:
        return None
    if len(sent) > 1 or not _KEY.fullmatch(sent[0]):
        raise BadRequest(f"{HEADER} is one header of 1 to 255 visible ASCII characters.", field=HEADER)
    return sent[0]


async def required_key(
    request: Request, _documented: Annotated[str | None, Header(alias=HEADER, description=MEANING)] = None
) -> str:
    """The key. Raises BadRequest: `idempotency_key_required` when there is none."""
    key = await optional_key(request)
    if key is None:
        raise BadRequest(f"This moves money: send an {HEADER} header.", code="idempotency_key_required")
    return key


def mark_replayed(response: Response) -> None:
    """Say that this answer was given before. `errors.py` says it of a problem document."""
    response.headers[REPLAYED] = "true"
