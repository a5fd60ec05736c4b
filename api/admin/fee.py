"""The door to the fee schedule. The use cases are in api/service/fee_schedule.py.

look      GET  /v1/admin/fees, /v1/admin/fees/{version}
try       POST /v1/admin/fees/preview    computes, changes nothing
set       PUT  /v1/admin/fees            the next version, in force from its commit on
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from api.access import get_resources, needs_role
from api.http.body import AmountMsat, Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.http.idempotency_key import optional_key
from api.service import fee_schedule
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.fee import MAX_LEVEL
from engine.domain.money import Msat

router = APIRouter(prefix="/v1/admin/fees", tags=["operators"])
Finance = Annotated[Caller, Depends(needs_role(*MAY["set fees"]))]
Res = Annotated[Resources, Depends(get_resources)]
Version = Annotated[int, Path(ge=1, le=2**31 - 1)]

_EXAMPLE = {
    "lightning_out": [{"flat_msat": 1000}, {"proportional_ppm": 2500}, {"maximum_msat": 5_000_000}],
    "internal": [{"exempt": {"levels": [3], "up_to_msat": 10_000_000}}, {"flat_msat": 500}],
}
_CONTENT = "Steps per kind of movement, in their order; see docs/ledger.md. A kind without steps is free."


class ScheduleIn(Content):
    """The next version of the schedule."""

    content: dict[str, Any] = Field(description=_CONTENT)
    note: Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")] = Field(description="Why.")
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(description="The version in force, plus one.")


class ScheduleOut(BaseModel):
    """One version of the schedule; it never changes."""

    model_config = ConfigDict(from_attributes=True)

    version: int = Field(examples=[2])
    content: dict[str, Any] = Field(description=_CONTENT, examples=[_EXAMPLE])
    note: str
    set_by: str = Field(description="The operator.")
    created_at: datetime


class PreviewIn(Content):
    """One movement, and the schedule to try. Without one, the schedule in force is used."""

    content: dict[str, Any] | None = Field(default=None, description=_CONTENT)
    kind: Literal["internal", "lightning_out", "lightning_in", "deposit", "withdrawal"]
    amount_msat: AmountMsat
    level: Annotated[int, Field(ge=0, le=MAX_LEVEL)] = Field(default=0, description="The level of the account.")


class EffectOut(BaseModel):
    """The fee after one step."""

    model_config = ConfigDict(from_attributes=True)

    step: str = Field(
        description="the step's name; at the end also whole_sat and at_most_the_amount, if they apply",
        examples=["flat_msat"],
    )
    fee_msat: int = Field(examples=[1_000])


class PreviewOut(BaseModel):
    """The fee, and how it is computed."""

    model_config = ConfigDict(from_attributes=True)

    version: int | None = Field(description="null for a schedule that was sent")
    fee_msat: int = Field(examples=[3_500])
    steps: list[EffectOut] = Field(description="The steps that applied, in their order.")


@router.get("", summary="Show the fees in force", responses=problems("forbidden"))
async def show_fees(caller: Finance, resources: Res) -> ScheduleOut:
    """Role: `finance`."""
    return ScheduleOut.model_validate(await fee_schedule.show_fees(resources, caller))


@router.get(
    "/{version}", summary="Show a version of the fees", responses=problems("forbidden", "not_found", "invalid_request")
)
async def show_fees_version(caller: Finance, resources: Res, version: Version) -> ScheduleOut:
    """Role: `finance`."""
    return ScheduleOut.model_validate(await fee_schedule.show_fees(resources, caller, version))


@router.put(
    "",
    summary="Set the fees",
    responses=problems("forbidden", "invalid_request", "request_too_large", "version_conflict"),
    openapi_extra=documented(ScheduleIn, second={"version": 2, "note": "fees from May on", "content": _EXAMPLE}),
)
async def set_fees(
    caller: Finance, body: Annotated[Body[ScheduleIn], Depends(JsonBody(ScheduleIn))], resources: Res
) -> ScheduleOut:
    """Role: `finance`. In force at once. A payment that is open keeps its fee.

    The same request by the same operator is a repeat and gets the same version.
    """
    asked = body.content
    edition = await fee_schedule.set_fees(resources, caller, asked.content, version=asked.version, note=asked.note)
    return ScheduleOut.model_validate(edition)


@router.post(
    "/preview",
    summary="Try a fee",
    responses=problems("forbidden", "invalid_request", "request_too_large"),
    openapi_extra=documented(
        PreviewIn,
        in_force={"kind": "lightning_in", "amount_msat": 250_000},
        another={"kind": "internal", "amount_msat": 9_000_000, "level": 3, "content": _EXAMPLE},
    ),
)
async def preview_fee(
    caller: Finance,
    _key: Annotated[str | None, Depends(optional_key)],
    body: Annotated[Body[PreviewIn], Depends(JsonBody(PreviewIn))],
    resources: Res,
) -> PreviewOut:
    """Role: `finance`. Changes nothing, so an Idempotency-Key is accepted and not kept."""
    asked = body.content
    preview = await fee_schedule.preview_fee(
        resources, caller, asked.kind, Msat(asked.amount_msat), level=asked.level, content=asked.content
    )
    return PreviewOut.model_validate(preview)
