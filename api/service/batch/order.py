"""An order to pay a batch, and the order checked, as the request that the batch's workflow is started with."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from api.service.auth import Caller
from api.service.batch.batch_item import BatchItemOrder, read_items
from api.service.fresh_price import require_fresh_prices
from api.service.resources import Resources
from engine.bank.limit import get_payer
from engine.contracts.batch import BatchRequest
from engine.domain.errors import Invalid
from engine.domain.ids import ApiKeyId, BatchId, WalletId
from engine.domain.money import MAX_AMOUNT_MSAT


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOrder:
    """What a caller asks to be paid out of one wallet, in this order."""

    wallet_id: WalletId
    items: Sequence[BatchItemOrder]
    key: str
    """The idempotency key."""
    body_hash: bytes
    """SHA-256 of the order, by which a repeat is told from another order with the same key."""


async def check(resources: Resources, caller: Caller, order: BatchOrder, batch_id: BatchId) -> BatchRequest:
    """The request with every destination looked up. Raises what a caller can correct."""
    account_id, key_id = caller.account_id, ApiKeyId(caller.key_id)
    async with resources.reading() as conn:
        payer = await get_payer(conn, account_id, order.wallet_id, key_id)
        items = await read_items(conn, resources.settings, order.wallet_id, order.items, datetime.now(UTC))
    await require_fresh_prices(resources, payer, "internal")
    request = BatchRequest(
        batch_id=batch_id,
        account_id=account_id,
        wallet_id=order.wallet_id,
        idempotency_key=order.key,
        body_hash=order.body_hash.hex(),
        api_key_id=key_id,
        items=items,
    )
    if request.total_msat > MAX_AMOUNT_MSAT:
        raise Invalid(f"All items together are at most {MAX_AMOUNT_MSAT:,} msat.", field="items")
    return request
