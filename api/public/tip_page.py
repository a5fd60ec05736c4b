"""The pages of `tip.py`: a form, an invoice with its QR code, and how it ended.

A page is plain HTML from a few templates, and every text in it is escaped. It loads nothing from other servers: the
content security policy allows the page's own style and script, by their hashes, and nothing else. The script asks
`verify` (lnurl.py) whether the invoice is paid. Without scripts the page reloads itself.
"""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from string import Template
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from api.http.errors import in_public_words
from api.http.markup import Markup, filled, qr_code, source
from api.public.tip_offer import Offer
from api.service.invoice.answer import InvoiceOut
from api.service.invoice.payee import MIN_RECEIVED_MSAT, Payee
from engine.domain.errors import EngineError
from engine.domain.lnurl import COMMENT_LENGTH, address_path, write_lnurl
from engine.domain.money import Msat, msat_to_sat_floor

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


_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {source(_STYLE)}; script-src {source(_SCRIPT)}; "
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
$qr
$on_chain""")
_OPEN = Template("""<p data-verify="$verify" data-left-ms="$left_ms">$amount sat</p>
<p role="status">Waiting for the payment.</p>$warning
<a href="$uri">$qr</a><p><a href="lightning:$bolt11"><code>$bolt11</code></a></p>$on_chain""")
_ENDED = Template("""<p>$amount sat</p><p role="status">$sentence</p><p><a href="/pay/$name">Pay again</a></p>""")
_WARNING = Template("""<p>$sentence</p>""")
_REFUSED = Template("""<p role="status">$sentence</p>""")
_RELOAD = f'<noscript><meta http-equiv="refresh" content="{_LOOK_EVERY_S}"></noscript>'
_ENDS = {
    "settled": "Paid. Thank you!",
    "expired": "This invoice has expired; nothing was paid over Lightning.",
    "cancelled": "This invoice was cancelled; nothing was paid over Lightning.",
}


class PageRoute(APIRoute):
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
                response = _page(name, filled(_REFUSED, sentence=sentence), status=status)
            response.headers.update(_HEADERS)
            return response

        return answer


def form_page(payee: Payee, *, domain: str, public_url: str, on_chain: Markup) -> HTMLResponse:
    """The user's page, where a payer says how much."""
    content = filled(
        _FORM,
        address=f"{payee.name}@{domain}",
        min_sat=str(msat_to_sat_floor(MIN_RECEIVED_MSAT)),
        max_sat=str(msat_to_sat_floor(payee.most_msat)),
        qr=qr_code(write_lnurl(public_url + address_path(payee.name))),
        on_chain=on_chain,
    )
    return _page(payee.name, content)


def invoice_page(name: str, invoice: InvoiceOut, offer: Offer) -> HTMLResponse:
    """The invoice to pay, or how it ended."""
    amount = f"{msat_to_sat_floor(Msat(invoice.amount_msat or 0)):,}"
    if invoice.status in _ENDS:
        return _page(name, filled(_ENDED, amount=amount, name=name, sentence=_ENDS[invoice.status]))
    return _page(name, _waiting(name, invoice, amount, offer), head=Markup(_RELOAD))


def _waiting(name: str, invoice: InvoiceOut, amount: str, offer: Offer) -> Markup:
    return filled(
        _OPEN,
        amount=amount,
        warning=Markup("") if invoice.warning is None else filled(_WARNING, sentence=invoice.warning.detail),
        bolt11=invoice.bolt11,
        uri=offer.uri,
        qr=offer.qr,
        on_chain=offer.on_chain,
        left_ms=str((invoice.expires_at - datetime.now(UTC)) // timedelta(milliseconds=1)),
        verify=f"/lnurlp/{name}/verify/{invoice.payment_hash}",
    )


def _page(name: str, content: Markup, *, head: Markup | None = None, status: int = 200) -> HTMLResponse:
    return HTMLResponse(filled(_PAGE, name=name, content=content, head=head or Markup("")), status)
