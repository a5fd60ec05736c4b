"""The door to the limits that are in force, for operators. The use cases are in api/service/limit_rulebook.py."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from api.access import get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.service import limit_rulebook
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY

router = APIRouter(prefix="/v1/admin/limits", tags=["operators"])
Finance = Annotated[Caller, Depends(needs_role(*MAY["set limits"]))]
Res = Annotated[Resources, Depends(get_resources)]

_EXAMPLE = {
    "levels": {
        "0": {
            "internal": {"day_sat": 2_000_000},
            "lightning": {"day_sat": 1_000_000, "month_sat": 10_000_000, "day": {"USD": "1000.00"}},
            "deposit": {"month_sat": 50_000_000},
        }
    },
    "max_fee_factor": 20,
}


class RulebookIn(Content):
    """The next version of the limits."""

    content: dict[str, Any] = Field(
        description="By level and kind (`internal`, `lightning`, `deposit`): `day_sat`, `week_sat`, `month_sat`, and "
        "per window amounts in other currencies. `max_fee_factor` (20 by default): how many times the usual routing "
        "cap a payer may allow."
    )
    note: Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")] = Field(
        description="Why; kept for ever."
    )
    version: Annotated[int, Field(ge=2, le=2**31 - 1)] = Field(description="The one in force, plus one.")


class RulebookOut(BaseModel):
    """The limits in force."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    content: dict[str, Any] = Field(examples=[_EXAMPLE])
    note: str
    set_by: str
    created_at: datetime


@router.get(
    "",
    summary="Show the limits in force",
    responses=problems("forbidden"),
)
async def show_rulebook(caller: Finance, resources: Res) -> RulebookOut:
    """Role: `finance`."""
    return RulebookOut.model_validate(await limit_rulebook.show_limit_rulebook(resources, caller))


@router.put(
    "",
    summary="Set the limits",
    responses=problems("forbidden", "invalid_request", "version_conflict", "request_too_large"),
    openapi_extra=documented(
        RulebookIn, stricter={"content": _EXAMPLE, "note": "as the board decided in May", "version": 3}
    ),
)
async def set_rulebook(
    caller: Finance, resources: Res, body: Annotated[Body[RulebookIn], Depends(JsonBody(RulebookIn))]
) -> RulebookOut:
    """Role: `finance`. In force at once, for every process; older versions are kept.

    The whole content is replaced. A level without an entry has the limits of the nearest lower level. Counted amounts
    stay counted: below what is used already, a limit lets nothing pass until enough has left its window. A currency
    needs a price first. The same request by the same operator is a repeat and gets the same version.
    """
    asked = body.content
    edition = await limit_rulebook.set_limit_rulebook(
        resources, caller, asked.content, version=asked.version, note=asked.note
    )
    return RulebookOut.model_validate(edition)
