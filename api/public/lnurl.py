"""Lightning addresses of our users: the LNURL-pay server (LUD-06, 09, 12, 16, 21).

    /.well-known/lnurlp/<name>           the amounts that the user accepts, and the metadata
    /lnurlp/<name>/callback?amount=…     an invoice, whose description hash is the hash of that metadata
    /lnurlp/<name>/verify/<hash>         whether the invoice is paid, and the preimage

The comment becomes the invoice's memo, which only the user sees. The payment is a receipt like any other. Paying an
address outside, the other side of LNURL-pay, is in destination.py.
"""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from api.access import get_resources
from api.http.lnurl import LnurlRoute
from api.service.invoice.node import InvoiceOrder
from api.service.invoice.payee import (
    EXPIRY_S,
    MAX_RECEIVED_MSAT,
    MIN_RECEIVED_MSAT,
    Payee,
    find_payee,
    strangers_memo,
)
from api.service.invoice.public import make_for_public, show_for_public
from api.service.resources import Resources
from engine.domain.errors import Invalid
from engine.domain.lnurl import COMMENT_LENGTH, address_path, description_hash, metadata_of_user

router = APIRouter(tags=["lnurl"], route_class=LnurlRoute)
Res = Annotated[Resources, Depends(get_resources)]

_AMOUNT = re.compile(r"[1-9][0-9]{0,15}")


@router.get(address_path("{username}"), summary="What a user accepts (LNURL-pay)")
async def show_offer(resources: Res, username: str) -> dict[str, Any]:
    """No key needed. LUD-06 and LUD-16: the answer at a lightning address. Errors are LNURL's."""
    payee = await find_payee(resources, username)
    return {
        "tag": "payRequest",
        "callback": f"{resources.settings.public_url}/lnurlp/{payee.name}/callback",
        "minSendable": MIN_RECEIVED_MSAT,
        "maxSendable": payee.most_msat,
        "metadata": _metadata(resources, payee),
        "commentAllowed": COMMENT_LENGTH,
    }


@router.get("/lnurlp/{username}/callback", summary="Make an invoice of a user (LNURL-pay)")
async def make_invoice(
    resources: Res,
    username: str,
    amount: Annotated[str, Query(description="In millisatoshi.")] = "",
    comment: Annotated[str, Query(description="For the user to read.")] = "",
) -> dict[str, Any]:
    """No key needed. LUD-06, with a comment (LUD-12), a message for afterwards (LUD-09) and `verify` (LUD-21)."""
    payee = await find_payee(resources, username)
    asked = InvoiceOrder(
        wallet_id=payee.wallet_id,
        amount_msat=_amount(amount),
        memo=strangers_memo(comment),
        description_hash=description_hash(_metadata(resources, payee)),
        expiry_s=EXPIRY_S,
    )
    invoice = await make_for_public(resources, payee.account_id, asked)
    return {
        "pr": invoice.bolt11,
        "routes": [],
        "successAction": {"tag": "message", "message": f"Paid to {payee.name}. Thank you!"},
        "verify": f"{resources.settings.public_url}/lnurlp/{payee.name}/verify/{invoice.payment_hash}",
    }


@router.get("/lnurlp/{username}/verify/{payment_hash}", summary="Is it paid? (LNURL-pay)")
async def verify(resources: Res, username: str, payment_hash: str) -> dict[str, Any]:
    """No key needed. LUD-21; `preimage` is null until it is paid, and after a payment within this bank."""
    payee = await find_payee(resources, username)
    invoice, preimage = await show_for_public(resources, payee.account_id, payment_hash)
    return {"status": "OK", "settled": invoice.status == "settled", "preimage": preimage, "pr": invoice.bolt11}


def _metadata(resources: Resources, payee: Payee) -> str:
    return metadata_of_user(payee.name, resources.settings.domain)


def _amount(text: str) -> int:
    if not _AMOUNT.fullmatch(text) or not MIN_RECEIVED_MSAT <= int(text) <= MAX_RECEIVED_MSAT:
        raise Invalid(f"The amount is a number of millisatoshi from {MIN_RECEIVED_MSAT} to {MAX_RECEIVED_MSAT}.")
    return int(text)
