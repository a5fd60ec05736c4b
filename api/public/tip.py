"""A public page on which anybody may pay a user, from any wallet.

    GET  /pay/<name>             the lightning address as a QR code, and a form for the amount and a comment
    POST /pay/<name>             makes the invoice and redirects to its page, so a reload makes no second invoice
    GET  /pay/<name>/<hash>      the invoice as a QR code, until it is paid or has expired

The page is plain HTML from a few templates, and every text in it is escaped. It loads nothing from other servers: the
content security policy allows the page's own style and script, by their hashes, and nothing else. The script asks
`verify` (lnurl.py) whether the invoice is paid. Without scripts the page reloads itself.
"""

import base64
import hashlib
import html
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from string import Template
from typing import Annotated, Any
from urllib.parse import parse_qs

import segno
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from api.access import get_resources
from api.http.body import read_body
from api.http.codes import BadRequest
from api.http.errors import in_public_words
from api.service.invoice.answer import InvoiceOut
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
from engine.domain.errors import EngineError, Invalid
from engine.domain.lnurl import COMMENT_LENGTH, address_path, write_lnurl
from engine.domain.money import Msat, Sat, msat_to_sat_floor, sat_to_msat

_AMOUNT_SAT = re.compile(r"[1-9][0-9]{0,8}")
_MAX_FORM_BYTES = 8_192
_FORM_TYPE = "application/x-www-form-urlencoded"
_LOOK_EVERY_S = 5

_STYLE = """
body{font:18px/1.5 system-ui,sans-serif;max-width:26rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem}svg{width:100%;height:auto;display:block}code{overflow-wrap:anywhere;font-size:.7rem}
label,input,button{display:block;width:100%;box-sizing:border-box;font:inherit}
input,button{padding:.5rem;margin:.2rem 0 1rem}
[role=status]{font-weight:bold}
"""
_SCRIPT = """
const page = document.querySelector("[data-verify]");
async function look() {
  try {
    const told = await (await fetch(page.dataset.verify)).json();
    if (told.settled || performance.now() > Number(page.dataset.leftMs)) { location.reload(); return; }
  } catch (away) { /* asked again */ }
  setTimeout(look, 2000);
}
if (page) { look(); }
"""


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = Template(f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Pay $name</title>
<meta name="viewport" content="width=device-width, initial-scale=1">$head<style>{_STYLE}</style></head>
<body><main><h1>Pay $name</h1>
$content
</main><script>{_SCRIPT}</script></body></html>
""")
_FORM = Template(f"""<form method="post">
<label for="amount_sat">Amount in sat</label>
<input id="amount_sat" name="amount_sat" type="number" inputmode="numeric" required min="$min_sat" max="$max_sat">
<label for="memo">Message</label>
<input id="memo" name="memo" maxlength="{COMMENT_LENGTH}">
<button>Show the invoice</button></form>
<p>Or pay <strong>$address</strong> from your wallet:</p>
$qr""")
_OPEN = Template("""<p data-verify="$verify" data-left-ms="$left_ms">$amount sat</p>
<p role="status">Waiting for the payment.</p>$warning
<a href="lightning:$bolt11">$qr</a><p><code>$bolt11</code></p>""")
_ENDED = Template("""<p>$amount sat</p><p role="status">$sentence</p><p><a href="/pay/$name">Pay again</a></p>""")
_WARNING = Template("""<p>$sentence</p>""")
_REFUSED = Template("""<p role="status">$sentence</p>""")
_RELOAD = f'<noscript><meta http-equiv="refresh" content="{_LOOK_EVERY_S}"></noscript>'
_ENDS = {
    "settled": "Paid. Thank you!",
    "expired": "This invoice has expired; nothing was paid.",
    "cancelled": "This invoice was cancelled; nothing was paid.",
}


class _PageRoute(APIRoute):
    """A route that answers errors with a page, and sends the security headers with every page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, with pages for people in place of problem documents."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except EngineError as error:
                status, _code, sentence = in_public_words(request, error)
                name = str(request.path_params.get("username", ""))
                response = _page(name, _filled(_REFUSED, sentence=sentence), status=status)
            response.headers.update(_HEADERS)
            return response

        return answer


router = APIRouter(route_class=_PageRoute, include_in_schema=False)
Res = Annotated[Resources, Depends(get_resources)]


@router.get("/pay/{username}")
async def show_form(resources: Res, username: str) -> HTMLResponse:
    """The user's page."""
    payee = await find_payee(resources, username)
    content = _filled(
        _FORM,
        address=f"{payee.name}@{resources.settings.domain}",
        min_sat=str(msat_to_sat_floor(MIN_RECEIVED_MSAT)),
        max_sat=str(msat_to_sat_floor(payee.most_msat)),
        qr=_Markup(_qr(write_lnurl(resources.settings.public_url + address_path(payee.name)))),
    )
    return _page(payee.name, content)


@router.post("/pay/{username}")
async def make_invoice(request: Request, resources: Res, username: str) -> RedirectResponse:
    """Make an invoice and redirect to its page."""
    payee = await find_payee(resources, username)
    sent = await _form(request)
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
    amount = f"{msat_to_sat_floor(Msat(invoice.amount_msat or 0)):,}"
    if invoice.status in _ENDS:
        return _page(payee.name, _filled(_ENDED, amount=amount, name=payee.name, sentence=_ENDS[invoice.status]))
    return _page(payee.name, _waiting(payee, invoice, amount), head=_Markup(_RELOAD))


def _waiting(payee: Payee, invoice: InvoiceOut, amount: str) -> "_Markup":
    return _filled(
        _OPEN,
        amount=amount,
        warning=_Markup("") if invoice.warning is None else _filled(_WARNING, sentence=invoice.warning.detail),
        bolt11=invoice.bolt11,
        qr=_Markup(_qr(invoice.bolt11)),
        left_ms=str((invoice.expires_at - datetime.now(UTC)) // timedelta(milliseconds=1)),
        verify=f"/lnurlp/{payee.name}/verify/{invoice.payment_hash}",
    )


async def _form(request: Request) -> dict[str, str]:
    """The fields of the form, each once. Raises Invalid, BadRequest, TooLarge for a form that is not this page's."""
    media_type = request.headers.get("content-type", _FORM_TYPE).partition(";")[0].strip().lower()
    if media_type != _FORM_TYPE:
        raise BadRequest(f"A form must be sent as {_FORM_TYPE}.")
    body = await read_body(request, _MAX_FORM_BYTES)
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=10, errors="strict")
    except ValueError:
        raise Invalid("The form cannot be read.") from None
    return {name: values[0] for name, values in fields.items()}


def _amount(text: str) -> Msat:
    amount_msat = sat_to_msat(Sat(int(text))) if _AMOUNT_SAT.fullmatch(text) else Msat(0)
    if not MIN_RECEIVED_MSAT <= amount_msat <= MAX_RECEIVED_MSAT:
        bounds = f"{msat_to_sat_floor(MIN_RECEIVED_MSAT)} to {msat_to_sat_floor(MAX_RECEIVED_MSAT):,} sat"
        raise Invalid(f"The amount is a whole number, from {bounds}.")
    return amount_msat


# HTML


class _Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _filled(template: Template, **texts: str) -> _Markup:
    """The template with these texts, each escaped unless it is HTML already."""
    safe = {name: text if isinstance(text, _Markup) else html.escape(text) for name, text in texts.items()}
    return _Markup(template.substitute(safe))


def _page(name: str, content: _Markup, *, head: _Markup | None = None, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_filled(_PAGE, name=name, content=content, head=head or _Markup("")), status)


@lru_cache(maxsize=1_024)
def _qr(text: str) -> str:
    """In upper case, which needs a smaller code. Drawing a code takes 5 to 12 ms, so codes are cached."""
    return segno.make(f"LIGHTNING:{text.upper()}", error="l", micro=False).svg_inline(
        border=2, omitsize=True, svgclass=None, lineclass=None
    )
