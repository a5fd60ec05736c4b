"""The door to the rules of withdrawals, for operators. The use cases are in api/service/withdrawal_rules.py."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from api.access import get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.service import withdrawal_rules
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY

router = APIRouter(prefix="/v1/admin/withdrawals/rules", tags=["operators"])
Finance = Annotated[Caller, Depends(needs_role(*MAY["set withdrawal rules"]))]
Res = Annotated[Resources, Depends(get_resources)]

_EXAMPLE = {
    "minimum_sat": 1_000,
    "approval_above_sat": 10_000_000,
    "second_operator_above_sat": 100_000_000,
    "approval_hours": 24,
    "speeds": {
        "fast": {"target_blocks": 2, "window_s": 30, "count": 100},
        "standard": {"target_blocks": 6, "window_s": 600, "count": 100},
        "slow": {"target_blocks": 144, "window_s": 7_200, "count": 200},
    },
    "rate": {"floor": 1_000, "ceiling": 500_000, "fallback": 10_000, "stale_s": 3_600},
    "coins": {"min_depth": 1, "useful_change_sat": 10_000, "long_term_rate": 10_000, "max_inputs": 200},
    "max_outputs": 200,
    "deep": 6,
    "bump": {"after_blocks": 3, "after_s": 3_600, "most": 10},
    "consolidation": {"enabled": False, "below_rate": 3_000, "above_coins": 500},
}


class WithdrawalRulesIn(Content):
    """The next version of the rules."""

    content: dict[str, Any] = Field(
        description="`speeds`: how many blocks the fee aims at, how long the first of a batch waits for others, and "
        "with how many it does not. `rate`: bounds in sat per 1,000 virtual bytes, and what to pay without a fresh "
        "estimate. Larger amounts than `approval_above_sat` need an operator within `approval_hours`, and than "
        "`second_operator_above_sat` two. `coins`, `bump`, `consolidation`: which coins are spent, when a transaction "
        "pays more by itself, and when small coins are joined. Everything must be given."
    )
    note: Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")] = Field(
        description="Why; kept for ever."
    )
    version: Annotated[int, Field(ge=2, le=2**31 - 1)] = Field(description="The one in force, plus one.")


class WithdrawalRulesOut(BaseModel):
    """The rules in force."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    content: dict[str, Any] = Field(examples=[_EXAMPLE])
    note: str
    set_by: str
    created_at: datetime


@router.get("", summary="Show the rules of withdrawals", responses=problems("forbidden"))
async def show_withdrawal_rules(caller: Finance, resources: Res) -> WithdrawalRulesOut:
    """Role: `finance`."""
    return WithdrawalRulesOut.model_validate(await withdrawal_rules.show_withdrawal_rules(resources, caller))


@router.put(
    "",
    summary="Set the rules of withdrawals",
    responses=problems("forbidden", "invalid_request", "version_conflict", "request_too_large"),
    openapi_extra=documented(
        WithdrawalRulesIn, larger={"content": _EXAMPLE, "note": "batches of 200 at night", "version": 2}
    ),
)
async def set_withdrawal_rules(
    caller: Finance, resources: Res, body: Annotated[Body[WithdrawalRulesIn], Depends(JsonBody(WithdrawalRulesIn))]
) -> WithdrawalRulesOut:
    """Role: `finance`. The whole content is replaced, for whatever is asked, batched and bumped from now on.

    Older versions are kept. The same request by the same operator is a repeat and gets the same version.
    """
    asked = body.content
    edition = await withdrawal_rules.set_withdrawal_rules(
        resources, caller, asked.content, version=asked.version, note=asked.note
    )
    return WithdrawalRulesOut.model_validate(edition)
