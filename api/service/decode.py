"""Decode: the use case, for any door. What a destination is and asks for; nothing is paid, held or asked of a node.

The server of a lightning address or LNURL outside is asked for its offer, and for no invoice.
"""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.service.destination import resolve
from api.service.resources import Resources
from engine.clients.lnurl.payee import Offer
from engine.domain.lnurl import plain_text


class DecodedOut(BaseModel):
    """What a destination is. Expired invoices are decoded too, and say so."""

    kind: Literal["bolt11", "internal", "lnurl", "keysend"] = Field(
        description="an invoice, a user, wallet or address of this bank, somebody outside who is asked for an invoice, "
        "or a node that is paid without one"
    )
    destination: str = Field(description="In its canonical form.")
    own: bool = Field(description="Whether the payment stays within this bank: at once, and without a routing fee.")
    network: str
    amount_msat: int | None = Field(description="null: the payer chooses.")
    min_amount_msat: int | None = Field(default=None, description="The least that an LNURL takes.")
    max_amount_msat: int | None = None
    description: str | None = None
    description_hash: str | None = None
    payment_hash: str | None = None
    payee: str | None = Field(default=None, description="Public key of the node that is paid.")
    username: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    expired: bool


async def decode(resources: Resources, destination: str) -> DecodedOut:
    """What the destination is. Raises Invalid, NotFound and Unavailable as its payment would."""
    resolved = await resolve(resources, destination)
    if resolved.offer is not None:
        return _offered(resolved.text, resolved.offer, resources.settings.bitcoin_network)
    invoice = resolved.invoice
    if invoice is None:
        return DecodedOut(
            kind="internal" if resolved.is_internal else "keysend",
            destination=resolved.text,
            own=resolved.is_internal,
            network=resources.settings.bitcoin_network,
            amount_msat=resolved.asked_msat,
            payee=resolved.payee_node,
            username=resolved.username,
            expired=False,
        )
    return DecodedOut(
        kind="bolt11",
        destination=resolved.text,
        own=resolved.is_internal,
        network=invoice.network,
        amount_msat=invoice.amount_msat,
        description=invoice.description,
        description_hash=invoice.description_hash,
        payment_hash=invoice.payment_hash,
        payee=invoice.payee,
        created_at=invoice.created_at,
        expires_at=invoice.expires_at,
        expired=invoice.expires_at <= datetime.now(UTC),
    )


def _offered(text: str, offer: Offer, network: str) -> DecodedOut:
    return DecodedOut(
        kind="lnurl",
        destination=text,
        own=False,
        network=network,
        amount_msat=offer.fixed_msat,
        min_amount_msat=offer.min_msat,
        max_amount_msat=offer.max_msat,
        description=plain_text(offer.metadata),
        expired=False,
    )
