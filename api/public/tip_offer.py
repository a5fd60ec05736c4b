"""The ways to pay that the pages of `tip.py` offer: Lightning, and the user's address where one is ready."""

from dataclasses import dataclass
from string import Template

from api.http.markup import Markup, filled, qr_code, uri_qr_code
from api.service.address.answer import both_ways
from api.service.address.tip import TipAddress
from api.service.invoice.answer import InvoiceOut
from engine.domain.bip21 import write_uri
from engine.domain.money import Msat, msat_to_sat_floor, sat_to_msat

_ON_CHAIN = Template("""<p>Or on chain, at least $minimum sat: <a href="$uri"><code>$address</code></a></p>""")
_NOTHING = Markup("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """How an invoice can be paid."""

    uri: str
    """What a wallet opens: both ways in one, or the invoice alone."""
    qr: Markup
    on_chain: Markup
    """The address by itself, or nothing."""


def beside_form(on_chain: TipAddress | None) -> Markup:
    """The address for any amount."""
    return _NOTHING if on_chain is None else _address_to_pay(on_chain, write_uri(on_chain.address))


def beside_invoice(invoice: InvoiceOut, on_chain: TipAddress | None) -> Offer:
    """Both ways, unless no address is ready or the amount is too small to be credited on chain."""
    amount_msat = Msat(invoice.amount_msat or 0)
    if on_chain is None or amount_msat < sat_to_msat(on_chain.minimum_sat):
        return Offer(uri=f"lightning:{invoice.bolt11}", qr=qr_code(invoice.bolt11), on_chain=_NOTHING)
    both = both_ways(on_chain.address, invoice.bolt11, amount_msat)
    alone = write_uri(on_chain.address, amount_sat=msat_to_sat_floor(amount_msat))
    return Offer(uri=both, qr=uri_qr_code(both), on_chain=_address_to_pay(on_chain, alone))


def _address_to_pay(on_chain: TipAddress, uri: str) -> Markup:
    return filled(_ON_CHAIN, address=on_chain.address, uri=uri, minimum=f"{max(1, on_chain.minimum_sat):,}")
