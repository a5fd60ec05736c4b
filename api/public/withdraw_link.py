"""The door of withdraw links for claimants (LNURL-withdraw, LUD-03). Errors are LNURL's.

    GET /lnurlw/<id>_<seal>                          what the link gives, with a `k1` for one claim
    GET /lnurlw/<id>_<seal>/callback?k1=…&pr=…       claims it with an invoice

The use cases are in api/service/withdraw_link/claim.py.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from api.access import PathId, get_resources
from api.http.lnurl import LnurlRoute
from api.service.resources import Resources
from api.service.withdraw_link.claim import claim, open_link

router = APIRouter(tags=["lnurl"], route_class=LnurlRoute)
Res = Annotated[Resources, Depends(get_resources)]


@router.get("/lnurlw/{sealed_id}", summary="What a withdraw link gives (LNURL-withdraw)")
async def show_gift(resources: Res, sealed_id: PathId) -> dict[str, Any]:
    """No key needed. LUD-03; each answer has a `k1` of its own, for one claim. Errors are LNURL's."""
    link = await open_link(resources, sealed_id)
    return {
        "tag": "withdrawRequest",
        "callback": f"{link.url}/callback",
        "k1": link.k1,
        "defaultDescription": link.memo or "",
        "minWithdrawable": link.amount_msat,
        "maxWithdrawable": link.amount_msat,
    }


@router.get("/lnurlw/{sealed_id}/callback", summary="Claim a withdraw link (LNURL-withdraw)")
async def claim_gift(
    resources: Res,
    sealed_id: PathId,
    k1: Annotated[str, Query(description="From the answer before.")] = "",
    pr: Annotated[str, Query(description="An invoice over the link's amount.")] = "",
) -> dict[str, str]:
    """No key needed. LUD-03: OK says that the payment was accepted and is under way. A repeat changes nothing."""
    await claim(resources, sealed_id, k1, pr)
    return {"status": "OK"}
