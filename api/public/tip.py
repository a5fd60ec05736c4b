"""A public page on which anybody may pay a user, from any wallet.

    GET  /pay/<name>             the lightning address as a QR code, and a form for the amount and a comment
    POST /pay/<name>             makes the invoice and redirects to its page, so a reload makes no second invoice
    GET  /pay/<name>/<hash>      the invoice as a QR code, until it is paid or has expired

Both pages also show the user's current address for payments on chain, and the second one offers both ways in one QR
code. `tip_page.py` writes the pages.
"""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from api.access import get_resources
from api.http.form import read_form
from api.public import tip_offer, tip_page
from api.service.address.tip import find_tip_address
from api.service.invoice.node import InvoiceOrder
from api.service.invoice.payee import EXPIRY_S, MAX_RECEIVED_MSAT, MIN_RECEIVED_MSAT, find_payee, strangers_memo
from api.service.invoice.public import make_for_public, show_for_public
from api.service.resources import Resources
from engine.domain.errors import Invalid
from engine.domain.money import Msat, Sat, msat_to_sat_floor, sat_to_msat

_AMOUNT_SAT = re.compile(r"[1-9][0-9]{0,8}")
_MAX_FORM_BYTES = 8_192

router = APIRouter(route_class=tip_page.PageRoute, include_in_schema=False)
Res = Annotated[Resources, Depends(get_resources)]


@router.get("/pay/{username}")
async def show_form(resources: Res, username: str) -> HTMLResponse:
    """The user's page."""
    payee = await find_payee(resources, username)
    on_chain = tip_offer.beside_form(await find_tip_address(resources, payee))
    settings = resources.settings
    return tip_page.form_page(payee, domain=settings.domain, public_url=settings.public_url, on_chain=on_chain)


@router.post("/pay/{username}")
async def make_invoice(request: Request, resources: Res, username: str) -> RedirectResponse:
    """Make an invoice and redirect to its page."""
    payee = await find_payee(resources, username)
    sent = await read_form(request, _MAX_FORM_BYTES)
    asked = InvoiceOrder(
        wallet_id=payee.wallet_id,
        amount_msat=_amount(sent.get("amount_sat", "")),
        memo=strangers_memo(sent.get("memo", "")),
        expiry_s=EXPIRY_S,
    )
    invoice = await make_for_public(resources, payee.account_id, asked)
    return RedirectResponse(f"/pay/{payee.name}/{invoice.payment_hash}", status_code=303)


@router.get("/pay/{username}/{payment_hash}")
async def show_invoice(resources: Res, username: str, payment_hash: str) -> HTMLResponse:
    """The invoice, or how it ended."""
    payee = await find_payee(resources, username)
    invoice, _preimage = await show_for_public(resources, payee.account_id, payment_hash)
    on_chain = await find_tip_address(resources, payee) if invoice.status == "open" else None
    return tip_page.invoice_page(payee.name, invoice, tip_offer.beside_invoice(invoice, on_chain))


def _amount(text: str) -> Msat:
    amount_msat = sat_to_msat(Sat(int(text))) if _AMOUNT_SAT.fullmatch(text) else Msat(0)
    if not MIN_RECEIVED_MSAT <= amount_msat <= MAX_RECEIVED_MSAT:
        bounds = f"{msat_to_sat_floor(MIN_RECEIVED_MSAT)} to {msat_to_sat_floor(MAX_RECEIVED_MSAT):,} sat"
        raise Invalid(f"The amount is a whole number, from {bounds}.")
    return amount_msat
