"""The door to the chain and to all deposits, for operators. The use cases are in api/service/chain/.

Nothing here calls bitcoind.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from api.access import get_resources, needs_role
from api.admin.approval import Reason
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.chain import rescan, search, state
from api.service.chain.search import LONGEST, FoundOut, OperatorDepositOut
from api.service.chain.state import ChainOut
from api.service.resources import Resources
from api.service.role import MAY
from engine.domain.deposit import DepositStatus

router = APIRouter(prefix="/v1/admin", tags=["operators"])
Reader = Annotated[Caller, Depends(needs_role(*MAY["see the chain"]))]
Res = Annotated[Resources, Depends(get_resources)]
_MAX_HEIGHT = 2**31 - 1


class DepositsQuery(Paging):
    """Which deposits."""

    status: DepositStatus | None = None


class RescanIn(Content):
    """From where, and why."""

    height: Annotated[int, Field(ge=0, le=_MAX_HEIGHT)] = Field(description="The first block to look at again.")
    reason: Reason
    wallet: Annotated[Text, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")] = "hot"


class RescanOut(BaseModel):
    """The rescan that the pump will do."""

    model_config = ConfigDict(from_attributes=True)

    wallet: str
    rescan_from: int
    tip_height: int


@router.get("/chain", summary="Show the chain, the hot wallet and deposits by status", responses=problems("forbidden"))
async def show_chain(caller: Reader, resources: Res) -> ChainOut:
    """Role: `support`, `treasury` or `finance`. As the pump last wrote it down; see `report_age_s`."""
    return await state.show_chain(resources, caller)


@router.get(
    "/chain/search",
    summary="Search by transaction, output, address or deposit",
    responses=problems("forbidden", "invalid_request"),
)
async def search_chain(
    caller: Reader,
    resources: Res,
    q: Annotated[
        Text,
        Query(
            min_length=1,
            max_length=LONGEST,
            description="A txid, an outpoint (`txid:vout`), an address, or the id of a deposit.",
        ),
    ],
) -> FoundOut:
    """Role: `support`, `treasury` or `finance`. Also outputs that a deposit had before it was replaced.

    Empty lists mean that the bank knows nothing of it.
    """
    return await search.search_chain(resources, caller, q)


@router.post(
    "/chain/rescan",
    status_code=202,
    summary="Look at the chain again",
    responses=problems("forbidden", "not_found", "invalid_request"),
    openapi_extra=documented(RescanIn, restored={"height": 870_000, "reason": "the wallet was restored"}),
)
async def rescan_chain(
    caller: Annotated[Caller, Depends(needs_role(*MAY["rescan the chain"]))],
    resources: Res,
    body: Annotated[Body[RescanIn], Depends(JsonBody(RescanIn))],
) -> RescanOut:
    """Role: `treasury` or `finance`. The pump looks at all blocks from this height on, within seconds.

    What is right stays as it is. A repeat adds nothing while the first request is open.
    """
    asked = body.content
    found = await rescan.rescan_chain(resources, caller, asked.wallet, height=asked.height, reason=asked.reason)
    return RescanOut.model_validate(found)


@router.get("/deposits", summary="List all deposits", responses=problems("forbidden", "invalid_request"))
async def list_all_deposits(
    caller: Reader, resources: Res, query: Annotated[DepositsQuery, Query()]
) -> Page[OperatorDepositOut]:
    """Role: `support`, `treasury` or `finance`. Of every account and of none, newest first.

    `status=unattributed` and `status=held` list those that wait for two operators.
    """
    name = f"all deposits {query.status}"
    found = await search.list_all_deposits(
        resources, caller, query.status, after=position(query, name), limit=query.limit
    )
    return page_of(found, name)
