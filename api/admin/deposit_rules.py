"""The door to the rules of deposits, for operators. The use cases are in api/service/deposit_rules.py."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from api.access import get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.service import deposit_rules
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY

router = APIRouter(prefix="/v1/admin/deposits/rules", tags=["operators"])
Finance = Annotated[Caller, Depends(needs_role(*MAY["set deposit rules"]))]
Res = Annotated[Resources, Depends(get_resources)]

_EXAMPLE = {
    "confirmations": [
        {"up_to_sat": 1_000_000, "confirmations": 1},
        {"up_to_sat": 100_000_000, "confirmations": 3},
        {"confirmations": 6},
    ],
    "minimum_sat": 1_000,
    "deep": 6,
    "unpaid_addresses": 1_000,
}


class DepositRulesIn(Content):
    """The next version of the rules."""

    content: dict[str, Any] = Field(
        description="`confirmations`: how many an amount needs, in steps; the last step has no `up_to_sat`. "
        "`minimum_sat`: smaller deposits are booked and not credited. `deep`: confirmations after which a deposit is "
        "left alone. `unpaid_addresses`: how many unpaid addresses a wallet may have."
    )
    note: Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")] = Field(
        description="Why; kept for ever."
    )
    version: Annotated[int, Field(ge=2, le=2**31 - 1)] = Field(description="The one in force, plus one.")


class DepositRulesOut(BaseModel):
    """The rules in force."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    content: dict[str, Any] = Field(examples=[_EXAMPLE])
    note: str
    set_by: str
    created_at: datetime


@router.get("", summary="Show the rules of deposits", responses=problems("forbidden"))
async def show_deposit_rules(caller: Finance, resources: Res) -> DepositRulesOut:
    """Role: `finance`."""
    return DepositRulesOut.model_validate(await deposit_rules.show_deposit_rules(resources, caller))


@router.put(
    "",
    summary="Set the rules of deposits",
    responses=problems("forbidden", "invalid_request", "version_conflict", "request_too_large"),
    openapi_extra=documented(
        DepositRulesIn, deeper={"content": _EXAMPLE, "note": "six blocks above one bitcoin", "version": 2}
    ),
)
async def set_deposit_rules(
    caller: Finance, resources: Res, body: Annotated[Body[DepositRulesIn], Depends(JsonBody(DepositRulesIn))]
) -> DepositRulesOut:
    """Role: `finance`. The whole content is replaced, for deposits that are first seen from now on.

    A deposit keeps the rules of its first sight. Older versions are kept. The same request by the same operator is a
    repeat and gets the same version.
    """
    asked = body.content
    edition = await deposit_rules.set_deposit_rules(
        resources, caller, asked.content, version=asked.version, note=asked.note
    )
    return DepositRulesOut.model_validate(edition)
