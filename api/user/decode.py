"""The door to decoding. The use case is in api/service/decode.py."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.access import get_resources, needs
from api.http.body import Body, Content, DestinationText, JsonBody, documented
from api.http.errors import problems
from api.http.idempotency_key import optional_key
from api.service.auth import Caller
from api.service.decode import DecodedOut, decode
from api.service.resources import Resources

router = APIRouter(tags=["payments"])


class DecodeIn(Content):
    """What to decode."""

    destination: DestinationText


@router.post(
    "/v1/decode",
    summary="Read a destination",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "invalid_destination", "wrong_network", "use_withdrawals"),
        *("destination_unavailable", "keysend_disabled"),
    ),
    openapi_extra=documented(DecodeIn, user={"destination": "@bob"}, invoice={"destination": "lightning:lnbcrt10u1p…"}),
)
async def decode_destination(
    _caller: Annotated[Caller, Depends(needs("read"))],
    _key: Annotated[str | None, Depends(optional_key)],
    body: Annotated[Body[DecodeIn], Depends(JsonBody(DecodeIn))],
    resources: Annotated[Resources, Depends(get_resources)],
) -> DecodedOut:
    """Scope: `read`. Changes nothing, so an Idempotency-Key is accepted and not kept."""
    return await decode(resources, body.content.destination)
