"""A claim checked, as the request that its payment's workflow is started with."""

from datetime import UTC, datetime

from api.service.destination import resolve
from api.service.fresh_price import require_fresh_prices
from api.service.resources import Resources
from engine.bank.limit import find_payer
from engine.bank.withdraw_link.link import WithdrawLink
from engine.clients import bolt11
from engine.contracts.payment import PaymentRequest
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.ids import PaymentId, id_for_key
from engine.domain.routing_cap import default_routing_cap


async def request_of(
    resources: Resources, link: WithdrawLink, k1: str, body_hash: bytes, invoice_text: str
) -> PaymentRequest:
    """The payment of the claimant's invoice out of the owner's wallet. Raises Invalid, and Unavailable for a limit that
    needs a fresh price."""
    invoice = _read_invoice(resources, link, invoice_text)
    await _require_fresh_prices(resources, link, invoice)
    return PaymentRequest(
        payment_id=PaymentId(id_for_key("pay", link.account_id, idempotency_key(k1))),
        account_id=link.account_id,
        wallet_id=link.wallet_id,
        idempotency_key=idempotency_key(k1),
        body_hash=body_hash.hex(),
        destination=invoice.bolt11,
        bolt11=invoice.bolt11,
        payment_hash=invoice.payment_hash,
        amount_in_invoice=True,
        amount_msat=link.amount_msat,
        max_fee_msat=default_routing_cap(link.amount_msat),
        memo=link.memo,
        api_key_id=link.key_id,
        withdraw_link_id=link.id,
    )


def idempotency_key(k1: str) -> str:
    """The key of the claim's payment, among the keys of the owner."""
    return f"lnurlw:{k1}"


def _read_invoice(resources: Resources, link: WithdrawLink, text: str) -> bolt11.Bolt11:
    invoice = bolt11.decode(text.removeprefix("lightning:"), network=resources.settings.bitcoin_network)
    if invoice.amount_msat != link.amount_msat:
        raise Invalid(f"The invoice must ask for exactly {link.amount_msat} msat.", code="amount_mismatch")
    if invoice.expires_at <= datetime.now(UTC):
        raise Invalid("The invoice has expired.", code="invoice_expired")
    return invoice


async def _require_fresh_prices(resources: Resources, link: WithdrawLink, invoice: bolt11.Bolt11) -> None:
    resolved = await resolve(resources, invoice.bolt11)
    async with resources.reading() as conn:
        payer = await find_payer(conn, link.account_id, link.wallet_id, link.key_id)
    if payer is None:
        raise InvariantBroken(f"{link.id} has no wallet")
    await require_fresh_prices(resources, payer, resolved.kind)
