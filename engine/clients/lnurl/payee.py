"""LNURL-pay from the payer's side (LUD-06, 12, 16): ask what may be paid, then for the invoice, and believe neither.

    look up   GET the URL                   → an `Offer`: bounds, metadata, callback
    ask       GET the callback with amount  → a BOLT 11 invoice over exactly that, for exactly that metadata,
                                              and what is shown to its payer (success_action.py)

The invoice is then paid like any other. Nothing is owed before, so both questions may be repeated; each answer of the
callback is another invoice.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.clients import bolt11
from engine.clients.lnurl.success_action import read_success_action
from engine.clients.lnurl.web import Json, Web
from engine.domain.errors import Invalid
from engine.domain.lnurl import address_path, description_hash, plain_text
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from engine.domain.outside import is_harmless, one_line

_REASON_BYTES = 200
_MAX_METADATA = 200_000
"""LUD-06 allows a picture of 136,536 characters in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a payee says that it takes."""

    callback: str
    min_msat: Msat
    max_msat: Msat
    metadata: str
    """As served; its hash must be in the invoice."""
    comment_length: int
    """Characters that the payer may say; 0: none."""

    @property
    def fixed_msat(self) -> Msat | None:
        """The amount, where the payee takes only one."""
        return self.min_msat if self.min_msat == self.max_msat else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An invoice, and what its payer is shown afterwards."""

    invoice: bolt11.Bolt11
    success_action: dict[str, str] | None


async def look_up_address(web: Web, name: str, domain: str) -> Offer:
    """The offer of a lightning address. Raises as `look_up`."""
    return await look_up(web, f"{web.scheme}://{domain}{address_path(name)}")


async def look_up(web: Web, url: str) -> Offer:
    """The offer at this URL. Raises Invalid (`invalid_destination`) or Unavailable (`destination_unavailable`)."""
    told = _checked(await web.ask(url))
    if told.get("tag") != "payRequest":
        raise _no("it does not take payments")
    callback, metadata = told.get("callback"), told.get("metadata")
    if not isinstance(callback, str) or not is_harmless(callback):
        raise _no("its offer has no callback")
    if not isinstance(metadata, str) or len(metadata) > _MAX_METADATA:
        raise _no("its offer has no metadata")
    if plain_text(metadata) is None:
        raise _no("its metadata does not say what is paid for")
    min_msat, max_msat = max(Msat(1), _amount(told, "minSendable")), _amount(told, "maxSendable")
    if min_msat > max_msat:
        raise _no("it takes no amount at all")
    return Offer(
        callback=callback,
        min_msat=min_msat,
        max_msat=max_msat,
        metadata=metadata,
        comment_length=whole(told.get("commentAllowed")) or 0,
    )


async def ask_for_invoice(web: Web, offer: Offer, amount_msat: Msat, comment: str | None, *, network: str) -> Given:
    """An invoice over this amount, checked against the offer. A comment that is too long is left out.

    Raises Invalid (`amount_too_small`, `amount_mismatch`, `wrong_network`, `invalid_destination`) or Unavailable
    (`destination_unavailable`).
    """
    check_amount(offer, amount_msat)
    query = {"amount": str(amount_msat)}
    if comment and len(comment) <= offer.comment_length:
        query["comment"] = comment
    told = _checked(await web.ask(offer.callback, query))
    text = told.get("pr")
    if not isinstance(text, str):
        raise _no("its callback gave no invoice")
    invoice = bolt11.decode(text, network=network)
    if invoice.amount_msat != amount_msat:
        raise _no("its invoice asks for another amount")
    if invoice.description_hash != description_hash(offer.metadata):
        raise _no("its invoice is for something else than was offered")
    return Given(invoice=invoice, success_action=read_success_action(told.get("successAction"), offer.callback))


def check_amount(offer: Offer, amount_msat: Msat) -> None:
    """Raises Invalid, `amount_too_small` or `amount_mismatch`, with the bounds, for what the payee does not take."""
    bounds = {"min_msat": offer.min_msat, "max_msat": offer.max_msat}
    if amount_msat < offer.min_msat:
        raise Invalid(f"The payee takes at least {offer.min_msat} msat.", code="amount_too_small", **bounds)
    if amount_msat > offer.max_msat:
        raise Invalid(f"The payee takes at most {offer.max_msat} msat.", code="amount_mismatch", **bounds)


def whole(value: object) -> int | None:
    """A whole number, not negative. Some services write 1000.0, which is whole too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _checked(told: Json) -> Json:
    """Raises Invalid with the other side's reason when it says no."""
    if str(told.get("status")).upper() == "ERROR":
        reason = one_line(str(told.get("reason") or "no reason"), _REASON_BYTES)
        raise _no(f'it says "{reason}"')
    return told


def _amount(told: Mapping[str, object], name: str) -> Msat:
    amount = whole(told.get(name))
    if amount is None:
        raise _no(f"its {name} is no amount")
    return Msat(min(amount, MAX_AMOUNT_MSAT))


def _no(reason: str) -> Invalid:
    return Invalid(f"This destination cannot be paid: {reason}.", code="invalid_destination")
